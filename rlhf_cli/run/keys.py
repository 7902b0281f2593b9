"""Keys of services: read from the environment where the configuration names them, never written anywhere."""

import os

from rlhf_cli.errors import ConfigError, MissingInputError


def read_key(name: str | None, *, where: str) -> str | None:
    """Read the key in the environment variable `name`; None when none is named.

    Says nothing of its value, not even when that cannot be a key. Raises MissingInputError or ConfigError.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise MissingInputError(
            f"the environment variable {name} is not set", where=where, fix=f"export {name}=..."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"what {name} holds is no key: it has characters that a header cannot carry",
            where=where,
            fix=f"export {name}=... with the key alone",
        )
    return key
