"""What two processes find out about each other; started by test_ranks.py."""

import torch

from rlhf_cli.errors import DataError, DivergedError, Preempted, RlhfError
from rlhf_cli.run.metrics import Mean, merge_together
from rlhf_cli.run.ranks import Ranks, join, leave
from rlhf_cli.run.signals import StopFlag, Stopped


def raised(action) -> RlhfError | Stopped | None:
    try:
        action()
    except (RlhfError, Stopped) as error:
        return error
    return None


def words(error: object) -> tuple[object, ...]:
    assert isinstance(error, RlhfError)
    return type(error), error.message, error.where, error.fix


def values_meet(ranks: Ranks) -> None:
    assert ranks.gather({"text": "é" * (1 + 9 * ranks.index)}) == [{"text": "é"}, {"text": "é" * 10}]
    assert ranks.gather([0.1, float("inf"), None]) == [[0.1, float("inf"), None]] * 2
    assert ranks.any(ranks.index == 1)
    assert not ranks.any(False)
    assert ranks.most([ranks.index, 5 - ranks.index]) == [1, 5]
    assert ranks.add_up(torch.tensor([1.0, 2.0]) * (1 + ranks.index)).tolist() == [3.0, 6.0]
    merged = merge_together({"shared": Mean(1.0, 2.0), f"own{ranks.index}": Mean(3.0, 1.0)}, ranks)
    assert merged == {"shared": Mean(2.0, 4.0), "own0": Mean(3.0, 1.0), "own1": Mean(3.0, 1.0)}


def errors_are_shared(ranks: Ranks) -> None:
    done: list[int] = []
    assert ranks.lead(lambda: done.append(1) or "led") == "led"  # type: ignore[func-returns-value]
    assert len(done) == (1 if ranks.leads else 0)

    def fail() -> None:
        raise DataError("broken", where="a.jsonl:3", fix="mend it")

    assert words(raised(lambda: ranks.lead(fail))) == (DataError, "broken", "a.jsonl:3", "mend it")
    own = Preempted("asked", fix="again") if ranks.index == 1 else None
    assert words(raised(lambda: ranks.agree(own))) == (Preempted, "asked", None, "again")
    assert raised(lambda: ranks.agree(None)) is None

    class Particular(DivergedError):
        pass

    told = raised(lambda: ranks.agree(Particular("x") if ranks.index == 1 else None))
    assert isinstance(told, DivergedError)


def work_is_dealt(ranks: Ranks, stop: StopFlag) -> None:
    own = {0: [("a", True), ("c", True)], 1: [("b", True), ("a", False)]}
    assert list(ranks.turns("abc")) == own[ranks.index]
    assert list(ranks.turns("")) == []
    stop.requested = ranks.index == 1
    assert isinstance(raised(lambda: list(ranks.turns("ab"))), Stopped)
    stop.requested = False


if __name__ == "__main__":
    flag = StopFlag()
    everyone = join(flag)
    assert everyone.size == 2
    values_meet(everyone)
    errors_are_shared(everyone)
    work_is_dealt(everyone, flag)
    leave(0)
