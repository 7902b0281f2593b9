"""Ask a labeler about every pair it has not judged, and store each vote before the next question."""

from collections.abc import Iterator
from uuid import uuid4

from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.labeler import Labeler, Stop, Undo, question_of, vote_on
from rlhf_cli.preference.store import Store
from rlhf_cli.run.chance import draw


def ask_machine(store: Store, labeler: Labeler, seed: int) -> Iterator[int]:
    """Yield the number of this labeler's votes each time there is one more, until every pair has one.

    A coin for each prompt says which answer comes first. Ends sooner when the labeler stops. Whoever iterates may
    stop at any time: what was yielded is on disk.
    """
    waiting = store.undecided(labeler.name)
    done = store.num_votes(labeler.name)
    total = done + len(waiting)
    for number, pair_id in enumerate(waiting, done + 1):
        pair = store.pair(pair_id)
        first = 1 + draw(seed, "order", pair.prompt_id) % 2
        question = question_of(pair, first, number, total)
        match labeler.label(question):
            case Stop() | Undo():
                return
            case verdict:
                store.vote(vote_on(pair_id, verdict, labeler.name, first), key=uuid4().hex)
        yield number


def ask_person(desk: Desk, labeler: Labeler) -> Iterator[int]:
    """Yield the number of votes at the desk each time it has changed, until there is no question for this person.

    Ends sooner when the person stops. Whoever iterates may stop at any time: what was yielded is on disk.
    """
    while (question := desk.next(labeler.name)) is not None:
        key = uuid4().hex
        match labeler.label(question):
            case Stop():
                desk.release(labeler.name)
                return
            case Undo():
                desk.undo(labeler.name, key=key)
            case verdict:
                desk.vote(labeler.name, question.presentation_id, verdict, key=key)
        yield desk.progress(labeler.name).done
