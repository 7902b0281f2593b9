"""Ask a labeler about every pair without a vote, and store each vote before the next question."""

from collections import deque
from collections.abc import Iterator
from uuid import uuid4

from rlhf_cli.preference.labeler import Labeler, Question, Stop, Undo, unblind
from rlhf_cli.preference.store import Pair, Store, Vote


def collect_votes(store: Store, labeler: Labeler) -> Iterator[int]:
    """Yield the number of votes in the store each time it has changed, until every pair has one.

    Ends sooner when the labeler stops. Whoever iterates may stop at any time: what was yielded is on disk.
    """
    waiting = deque(store.undecided())
    total = store.num_votes() + len(waiting)
    while waiting:
        pair = store.pair(waiting[0])
        key = uuid4().hex
        match labeler.label(_question(pair, total - len(waiting) + 1, total)):
            case Stop():
                return
            case Undo():
                undone = store.undo(labeler.name, key=key)
                if undone is not None:
                    waiting.appendleft(undone)
            case verdict:
                winner = unblind(verdict.winner, pair.first)
                store.vote(Vote(pair.id, winner, labeler.name, verdict.reason, verdict.seconds), key=key)
                waiting.popleft()
        yield total - len(waiting)


def _question(pair: Pair, number: int, total: int) -> Question:
    first, second = pair.shown
    cut = (first.finish_reason == "length", second.finish_reason == "length")
    return Question(pair.id, pair.prompt, first.text, second.text, number, total, cut, pair.extra)
