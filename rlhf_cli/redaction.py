"""Keep secrets out of files and terminals: the values of variables with telling names, and texts shaped like keys."""

import os
import re

HIDDEN = "<secret>"

_NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|KEY|APIKEY|CREDENTIALS?)(_|$)", re.IGNORECASE)
_SHORTEST = 8  # a shorter value is no secret, and hiding it would spoil ordinary words
_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bgh[opsu]_[A-Za-z0-9]{30,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{16,}=*"
    r"|(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"
)


def redact(text: str) -> str:
    """Replace every secret in a text.

    A secret is the value of an environment variable that is named like one (HF_TOKEN, OPENAI_API_KEY, DB_PASSWORD),
    or a text that has the shape of a key of a well-known service or of a URL's user and password.
    """
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _SHAPES.sub(HIDDEN, text)


def _secrets() -> set[str]:
    values = {value.strip() for name, value in os.environ.items() if _NAME.search(name)}
    return {value for value in values if len(value) >= _SHORTEST}
