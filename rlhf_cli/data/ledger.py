"""The account of a reading: records, rows that gave none, counts, and the verdict at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rlhf_cli.data.fields import SetAside
from rlhf_cli.data.files import Reading, Rejected
from rlhf_cli.errors import DataError

R = TypeVar("R")

BAD_ROWS = "bad rows"
_SHOWN = 5


@dataclass
class Ledger(Generic[R]):
    """What the sources gave so far; bad rows are kept apart, to be raised together."""

    records: list[R] = field(default_factory=list)
    num_rows: int = 0
    formats: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    bad: list[Rejected] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def note_bad(self, origin: str, reason: str) -> None:
        """Write down a row that breaks its format."""
        self.counts[BAD_ROWS] += 1
        self.bad.append(Rejected(origin, reason))
        self.rejected.append(self.bad[-1])

    def note_set_aside(self, origin: str, reason: SetAside) -> None:
        """Write down a well-formed row that gives no record."""
        self.counts[reason.kind] += 1
        self.rejected.append(Rejected(origin, str(reason)))

    def close(self, paths: Sequence[str], *, skip_bad_rows: bool) -> Reading[R]:
        """Raise DataError over bad rows that may not be skipped, and where no record is left."""
        if self.bad and not skip_bad_rows:
            raise DataError(
                f"{len(self.bad)} of {self.num_rows} rows cannot be read:{_listed(self.bad)}",
                where=self.bad[0].origin,
                fix="Correct them, set the source's format or columns, or set data.on_bad_row to skip.",
            )
        if not self.records:
            raise DataError(
                f"none of the {self.num_rows} rows gives a record:{_listed(self.rejected)}",
                where=", ".join(paths),
                fix="Check the source's format and columns.",
            )
        return Reading(self.records, self.num_rows, self.formats, self.rejected, dict(self.counts))


def _listed(rows: Sequence[Rejected]) -> str:
    lines = [f"{row.origin}: {row.reason}" for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        lines.append(f"and {len(rows) - _SHOWN} more")
    return "".join(f"\n  {line}" for line in lines)
