"""Points ahead of every durable operation, where a test can make a process fail, by name and count.

    RLHF_FAULT="checkpoint.rename:3=kill"     dies as it is about to rename a checkpoint for the third time
    RLHF_FAULT="*:57=ENOSPC"                  the disk refuses its 57th durable operation, of any kind
    RLHF_FAULT="atomic.write:1+=EIO"          the first and all later ones: a disk that stays broken
    RLHF_FAULT_RECORD=operations.txt          one line for each operation passed: number, name, file, what was done

An action is an errno by its name, which raises that OSError, or a signal without its SIG: kill, term, int. Counts are
those of one process; a fork starts at 0.
"""

import errno
import os
import re
import signal
from collections import Counter
from pathlib import Path

_RULE = re.compile(r"(?P<name>[\w.]+|\*):(?P<count>[1-9]\d*)(?P<onward>\+?)=(?P<action>\w+)")

_counts: Counter[str] = Counter()
os.register_at_fork(after_in_child=_counts.clear)


def fault_point(name: str, path: Path) -> None:
    """Stand ahead of a durable operation on `path`. Does nothing unless the environment says so."""
    rule, record = os.environ.get("RLHF_FAULT"), os.environ.get("RLHF_FAULT_RECORD")
    if not rule and not record:
        return
    _counts.update((name, "*"))
    action = _action(rule, name) if rule else None
    if record:
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(f"{_counts['*']} {name} {path.name} {action or '-'}\n")
    if action:
        _fail(action, path)


def _action(rule: str, name: str) -> str | None:
    parsed = _RULE.fullmatch(rule)
    if parsed is None:
        raise ValueError(f"RLHF_FAULT={rule!r} is not NAME:COUNT=ACTION, such as checkpoint.rename:3=kill")
    if parsed["name"] not in (name, "*"):
        return None
    seen, wanted = _counts[parsed["name"]], int(parsed["count"])
    return parsed["action"] if seen == wanted or (parsed["onward"] and seen > wanted) else None


def _fail(action: str, path: Path) -> None:
    numbers = {text: number for number, text in errno.errorcode.items()}
    if action in numbers:
        raise OSError(numbers[action], os.strerror(numbers[action]), str(path))
    os.kill(os.getpid(), signal.Signals[f"SIG{action.upper()}"])
