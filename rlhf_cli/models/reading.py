"""What a model's files may be like: the libraries' many errors over them in words of ours, and what is refused.

A model that loads is not yet a good one: weights can be missing (and would be random), NaN, or those of another task.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from transformers import PreTrainedModel

from rlhf_cli.errors import ConfigError, DataError, MissingInputError, RlhfError, UnavailableError
from rlhf_cli.run.failures import known_failure

_SHOWN = 3
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


def require_whole(model: PreTrainedModel, missing: set[str], path: str) -> None:
    """Raise DataError where weights are missing, which would stay random, or not finite."""
    if missing:
        raise DataError(
            f"the weights of {path} lack {len(missing)} tensors of {type(model).__name__}: {_listed(missing)}",
            where=path,
            fix="get the model again, or give one of the right kind",
        )
    odd = {name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())}
    if odd:
        raise DataError(
            f"the weights of {path} hold NaN or infinity: {_listed(odd)}",
            where=path,
            fix="give the model of a run that did not diverge",
        )


def require_language_model(model: PreTrainedModel, path: str) -> None:
    """Raise DataError where the files were saved as a model of another task, such as a reward model."""
    kinds = [name for name in model.config.architectures or [] if name.endswith("Classification")]
    if kinds:
        raise DataError(
            f"{path} is a reward model or classifier ({kinds[0]}), and a language model is needed",
            where=path,
            fix="give the run of an sft, ppo or dpo",
        )


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")
