"""Tell failures with a known cause from bugs, and keep the traceback of either."""

import errno
import time
import traceback
from pathlib import Path

from rlhf_cli.errors import Preempted, ResourceError, RlhfError, UnavailableError
from rlhf_cli.redaction import redact
from rlhf_cli.run.signals import Stopped

EXIT_BUG = 1
EXIT_INTERRUPTED = 130

_DISK_ERRNOS = {
    errno.ENOSPC: ("the disk is full", "Free some space."),
    errno.EDQUOT: ("your quota on the disk is used up", "Free some space."),
    errno.EIO: ("the disk reports an error", "Look at the disk, or choose a run_dir on another one."),
    errno.EROFS: ("the disk can only be read", "Choose a run_dir on another one."),
}
LOST_CONTACT = "lost contact with the other processes of this run: one of them has ended"
_FIND_THE_FIRST = "look for the message of the one that ended first, then run the same command again"
_LESS_MEMORY = (
    "Lower data.max_length or train.micro_tokens, set train.gradient_checkpointing: true, or train a LoRA."
)


def known_failure(error: BaseException) -> RlhfError | None:
    """Return the RlhfError that says what happened, None for a bug. Never imports torch to find out."""
    if isinstance(error, RlhfError):
        return error
    if isinstance(error, Stopped):
        return Preempted("interrupted; what was finished is saved", fix="run the same command again to go on")
    number = _disk_errno(error)
    if number is not None:
        what, fix = _DISK_ERRNOS[number]
        where = str(error.filename) if isinstance(error, OSError) and error.filename else None
        return ResourceError(what, where=where, fix=fix)
    if is_lost_contact(error):
        return UnavailableError(LOST_CONTACT, where=_first_line(error), fix=_FIND_THE_FIRST)
    if is_out_of_memory(error):
        return ResourceError("out of memory", where=_first_line(error), fix=_LESS_MEMORY)
    return None


def is_lost_contact(error: BaseException) -> bool:
    """Say whether another process of the run is gone, wherever torch found out: in gloo, NCCL, or their store."""
    by_name = any(kind.__name__ == "DistError" for kind in type(error).__mro__)
    return by_name or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _first_line(error: BaseException) -> str | None:
    return str(error).partition("\n")[0][:200] or None


def _disk_errno(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno if error.errno in _DISK_ERRNOS else None
    # safetensors reports the disk's refusal as an error of its own, with the number in its text.
    if type(error).__name__ == "SafetensorError":
        return next((number for number in _DISK_ERRNOS if f"os error {number})" in str(error)), None)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on whatever device."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch.OutOfMemoryError on devices; on the CPU torch raises a plain RuntimeError.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def exit_code_of(error: BaseException) -> int:
    """Return the documented exit code of an exception that ends the program."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    known = known_failure(error)
    return known.exit_code if known else EXIT_BUG


def save_crash(folder: Path, error: BaseException) -> Path:
    """Write the traceback to `folder`/crash-<time>.txt."""
    path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8")
    return path
