"""`rlhf calibrate`: the judge of a collect configuration against labels of people, before it is let loose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.config.judge_sections import JudgeLabeler
from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.errors import ConfigError, DataError, Preempted
from rlhf_cli.preference.ballots import Winner
from rlhf_cli.preference.judge.calibration import (
    Calibration,
    Demand,
    Labelled,
    calibrate,
    demands,
    may_stand_in,
)
from rlhf_cli.preference.judge.calls import Calls, Spent
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.verdict import Judgement
from rlhf_cli.preference.store import Store
from rlhf_cli.records import Text
from rlhf_cli.run.chance import draw
from rlhf_cli.run.progress import open_progress
from rlhf_cli.run.signals import StopFlag
from rlhf_cli.stages.judges import check_judge, make_judge, open_chat


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it; `spent` counts all calls that were ever kept in `calls`, a file."""

    judge: str
    figures: Calibration
    demands: Sequence[Demand]
    spent: Spent
    calls: Path

    @property
    def is_go(self) -> bool:
        return may_stand_in(self.demands)


def calibrate_judge(
    config: CollectConfig, labels: str, limit: int | None, say: Callable[[str], None]
) -> Report:
    """Have the configured judge decide the pairs that people labelled, and compare.

    Raises ConfigError where no judge is configured, DataError where nobody decided anything, and what chats raise;
    every reply is kept, so the same command goes on.
    """
    section = config.labeler
    if not isinstance(section, JudgeLabeler):
        raise ConfigError(
            f"the labeler is {section.kind}, and only a judge can be calibrated",
            where="labeler.kind",
            fix="give a configuration with `labeler: {kind: judge, chat: ...}`",
        )
    check_judge(section)
    pairs = read_labels(labels, limit, config.seed)
    folder = Path(f"{config.run_dir}-calibration")
    folder.mkdir(parents=True, exist_ok=True)
    with StopFlag().installed() as stop, Calls(folder / "calls.db") as calls:
        chat = open_chat(section.chat, calls, should_stop=lambda: stop.requested)
        judge = make_judge(section, chat, config.seed)
        by_id = {pair.case.id: pair for pair in pairs}
        found: list[tuple[Labelled, Judgement]] = []
        with open_progress("calibrate", len(pairs), start=0, say=say) as bar:
            for case, judgement in judge.judge(pair.case for pair in pairs):
                found.append((by_id[case.id], judgement))
                bar.update(len(found))
        if len(found) < len(pairs):
            raise Preempted(
                f"{len(found)} of {len(pairs)} pairs judged",
                fix="run the same command again: replies are kept, none is paid for twice",
            )
        spent = calls.spent()
    figures = calibrate(found, seed=config.seed)
    return Report(
        judge.name, figures, demands(figures, section.calibration.model_dump()), spent, folder / "calls.db"
    )


def read_labels(labels: str, limit: int | None, seed: int) -> list[Labelled]:
    """Read pairs with what people said: a collect run with its single votes, or rows in any preference format.

    With `limit`, a seeded choice. Raises DataError where no pair has a label.
    """
    database = Path(labels) / "collect.db"
    pairs = _from_store(database) if database.is_file() else _from_rows(labels, seed)
    if not pairs:
        raise DataError("no pair has votes of people", where=labels, fix="vote first, or give other labels")
    if limit is not None and limit < len(pairs):
        pairs = sorted(pairs, key=lambda pair: draw(seed, "calibrate", pair.case.id))[:limit]
    return pairs


def _from_store(path: Path) -> list[Labelled]:
    with Store(path) as store:
        people = {name for name, (kind, _) in store.labelers().items() if kind == "human"}
        votes: dict[int, list[Winner]] = {}
        for vote in (*store.votes(), *store.votes(surplus=True)):
            if vote.labeler in people and vote.winner in ("1", "2", "tie"):
                votes.setdefault(vote.pair_id, []).append(vote.winner)
        return [
            Labelled(
                Case(
                    pair.id,
                    pair.prompt,
                    (pair.responses[0].text, pair.responses[1].text),
                    (
                        pair.responses[0].finish_reason == "length",
                        pair.responses[1].finish_reason == "length",
                    ),
                ),
                tuple(votes[pair.id]),
                pair.prompt_id,
            )
            for pair in store.pairs()
            if pair.id in votes
        ]


def _from_rows(labels: str, seed: int) -> list[Labelled]:
    groups: dict[str, int] = {}
    pairs = []
    for number, row in enumerate(read_comparisons([Source(path=labels)], on_bad_row="skip").records):
        chosen, rejected = _answer(row.chosen), _answer(row.rejected)
        # Rows name the chosen answer first; were it always answer 1, agreement by chance could not be told.
        is_first = draw(seed, "side", repr(row.prompt), chosen, rejected) % 2 == 0
        texts = (chosen, rejected) if is_first else (rejected, chosen)
        winner: Winner = "tie" if row.p_chosen == 0.5 else "1" if is_first else "2"
        group = groups.setdefault(repr(row.prompt), len(groups))
        pairs.append(Labelled(Case(number, row.prompt, texts), (winner,), group))
    return pairs


def _answer(text: Text) -> str:
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return text[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in text)
