"""The libraries' many errors over a model's files, in words of ours."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

from rlhf_cli.errors import ConfigError, DataError, MissingInputError, RlhfError, UnavailableError
from rlhf_cli.run.failures import known_failure

_MOST_CHARACTERS = 300


class Reading:
    """Inside this block one library call reads `what` of the model at `path`; whatever it raises is explained.

    Over a damaged file the libraries raise nearly anything (tokenizers: plain Exception), so all errors count. Nothing
    of our own may stand inside.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and known_failure(error) is None:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> RlhfError:
        words = " ".join(str(error).split())[:_MOST_CHARACTERS]
        message = f"the {self._what} of {self._path} cannot be read: {type(error).__name__}: {words}"
        causes = list(_causes(error))
        if "custom code" in str(error) and "trust_remote_code" in str(error):
            return ConfigError(
                f"{self._path} brings Python code of its own, which is not run unasked",
                where="model.trust_remote_code",
                fix="read its code, then set it to true and model.revision to the commit you have read",
            )
        if isinstance(error, ImportError):
            return UnavailableError(words, where="model", fix="install it, or set `model.attention: auto`")
        if any(isinstance(cause, GatedRepoError) for cause in causes):
            fix = "ask for access on its page, then set HF_TOKEN or run `hf auth login`"
            return MissingInputError(f"{self._path} is gated", where=self._path, fix=fix)
        if isinstance(error, OSError) and not Path(self._path).exists():
            return _not_there(self._path, str(error).partition("\n")[0], causes)
        fix = "get the model again, or give another one"
        if isinstance(error, FileNotFoundError) or "no file named" in words:
            return MissingInputError(message, where=self._path, fix=fix)
        return DataError(message, where=self._path, fix=fix)


def _not_there(path: str, first_line: str, causes: list[BaseException]) -> RlhfError:
    fix = (
        "run the stage that makes it first, or give a directory, or a hub id (owner/name) in reach from here"
    )
    if any(isinstance(cause, LocalEntryNotFoundError | ConnectionError) for cause in causes):
        return UnavailableError(f"{path} is not here, and the Hub does not answer", where=path, fix=fix)
    return MissingInputError(f"no model {path}: {first_line}", where="model path", fix=fix)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
