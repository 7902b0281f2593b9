"""What people are given to write: the answer to a prompt, from nothing or from a draft."""

import time
from collections.abc import Callable, Mapping
from statistics import median

from starlette.exceptions import HTTPException

from rlhf_cli.preference.desk import Progress
from rlhf_cli.preference.web.forms import Form
from rlhf_cli.preference.web.overview import Overview
from rlhf_cli.preference.web.rendering import plain
from rlhf_cli.preference.web.work import Done, turns, waited_or_spent
from rlhf_cli.preference.writing import Writing, WritingDesk

MAX_TEXT_CHARACTERS = 20_000  # of four bytes each, and each written %XX in a form, they fit into one body

_WHY_CHARACTERS = 300


class WriteWork:
    """Demonstrations: prompts from a desk, answered in a text field."""

    template = "write.html"
    welcome = "You will see a prompt, and write the answer that you would want to get."

    def __init__(self, desk: WritingDesk, *, clock: Callable[[], float] = time.time) -> None:
        self._desk = desk
        self._clock = clock

    def task(self, annotator: str) -> Mapping[str, object] | None:
        task = self._desk.next(annotator)
        if task is None:
            return None
        return {
            "id": task.prompt_id,
            "asked_at": int(self._clock()),
            "turns": turns(task.prompt),
            "draft": task.draft,
            "max_text": MAX_TEXT_CHARACTERS,
        }

    def answer(self, annotator: str, form: Form) -> None:
        seconds = waited_or_spent(form, self._clock())
        text = form.verbatim("text").rstrip()
        if form.text("action") == "skip":
            writing = Writing(form.number("id"), annotator, "skip", seconds=seconds)
        elif not text.strip():
            raise HTTPException(422, "There is nothing to save. Write the answer, or skip.")
        elif len(text) > MAX_TEXT_CHARACTERS:
            raise HTTPException(422, f"An answer has at most {MAX_TEXT_CHARACTERS} characters.")
        else:
            writing = Writing(form.number("id"), annotator, "written", text, seconds)
        self._desk.write(writing, key=form.text("key"))

    def undo(self, annotator: str, *, key: str) -> None:
        self._desk.undo(annotator, key=key)

    def progress(self, annotator: str) -> Progress:
        return self._desk.progress(annotator)

    def history(self, annotator: str) -> list[Done]:
        return [
            Done(
                plain(past.words),
                "Skipped" if past.writing.outcome == "skip" else "Written",
                plain(_clipped(past.writing.text)),
            )
            for past in self._desk.history(annotator, 50)
        ]

    def overview(self) -> Overview:
        """Count what each person wrote and skipped, with typical length and time."""
        by_person: dict[str, list[Writing]] = {}
        for writing in self._desk.writings():
            by_person.setdefault(writing.labeler, []).append(writing)
        rows = {name: _row(mine) for name, mine in sorted(by_person.items())}
        return Overview(("Written", "Skipped", "Median length", "Median time"), rows)


def _clipped(text: str) -> str:
    return text if len(text) <= _WHY_CHARACTERS else f"{text[:_WHY_CHARACTERS]} …"


def _row(writings: list[Writing]) -> tuple[str, ...]:
    written = [writing for writing in writings if writing.outcome == "written"]
    counts = (str(len(written)), str(len(writings) - len(written)))
    if not written:
        return (*counts, "–", "–")
    length, seconds = median(len(w.text) for w in written), median(w.seconds for w in written)
    return (*counts, f"{length:.0f} characters", f"{seconds:.0f} s")
