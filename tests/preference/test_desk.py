"""The desk: exact overlap, leases, balanced order, and counts that follow every change."""

import threading
from collections import Counter
from uuid import uuid4

import pytest
from small_store import MakeStore

from rlhf_cli.errors import RunConflictError
from rlhf_cli.preference.desk import Desk, Progress
from rlhf_cli.preference.labeler import Choice, Question, Verdict
from rlhf_cli.preference.store import Store


def desk_of(store: Store, votes: int = 2, fraction: float = 0.5, **options: object) -> Desk:
    return Desk(store, votes_per_pair=votes, overlap_fraction=fraction, seed=3, **options)  # type: ignore[arg-type]


def next_of(desk: Desk, name: str) -> Question:
    question = desk.next(name)
    assert question is not None
    return question


def vote(desk: Desk, name: str, choice: Choice = "first", key: str | None = None) -> Question:
    question = next_of(desk, name)
    desk.vote(name, question.presentation_id, Verdict(choice), key=key or uuid4().hex)
    return question


def votes_by_pair(store: Store) -> Counter[int]:
    return Counter(vote.pair_id for vote in store.votes())


def test_a_crowd_gives_every_pair_exactly_what_is_wanted(make_store: MakeStore):
    store = make_store(40)
    with desk_of(store, votes=3, fraction=0.25) as desk:

        def work(name: str) -> None:
            while (question := desk.next(name)) is not None:
                desk.vote(name, question.presentation_id, Verdict("tie"), key=uuid4().hex)

        people = [threading.Thread(target=work, args=(name,)) for name in ("ana", "ben", "cleo", "dan")]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert desk.progress("ana").finished
    assert sorted(votes_by_pair(store).values()) == [1] * 30 + [3] * 10
    assert store.votes(surplus=True) == []
    by_person = Counter((v.pair_id, v.labeler) for v in store.votes())
    assert set(by_person.values()) == {1}


def test_the_same_seed_shares_the_same_pairs(make_store: MakeStore):
    store = make_store(10)
    wanted = []
    for _ in range(2):
        with desk_of(store):
            wanted.append([tuple(row) for row in store.rows("SELECT pair_id, wanted FROM demand ORDER BY 1")])
    assert wanted[0] == wanted[1]
    assert Counter(n for _, n in wanted[0]) == {1: 5, 2: 5}


def test_a_held_question_is_for_nobody_else_until_it_is_late(make_store: MakeStore):
    now = [0.0]
    with desk_of(make_store(1), fraction=0.0, lease_seconds=60, clock=lambda: now[0]) as desk:
        held = next_of(desk, "ana")
        assert next_of(desk, "ana") == held
        assert desk.next("ben") is None
        now[0] = 61.0
        assert next_of(desk, "ben").pair_id == held.pair_id
        assert desk.next("ana") is None  # ben has it now


def test_a_late_vote_is_kept_and_not_counted(make_store: MakeStore):
    now = [0.0]
    store = make_store(1)
    with desk_of(store, fraction=0.0, lease_seconds=60, clock=lambda: now[0]) as desk:
        late = next_of(desk, "ana")
        now[0] = 61.0
        vote(desk, "ben", "second")
        desk.vote("ana", late.presentation_id, Verdict("first"), key="late")
        assert [v.labeler for v in desk.votes()] == ["ben"]
        assert [v.labeler for v in store.votes(surplus=True)] == ["ana"]
        assert desk.progress("ana") == Progress(mine=1, done=1, total=1)


def test_everybody_sees_response_1_first_in_half_of_their_questions(make_store: MakeStore):
    with desk_of(make_store(20), fraction=1.0) as desk:
        for name in ("ana", "ben"):
            shown = [vote(desk, name).first.startswith("one") for _ in range(20)]
            assert sum(shown) == 10
            assert all(shown[i] != shown[i + 1] for i in range(0, 20, 2))  # two in a row hold one of each


def test_the_order_stays_through_undo_and_the_verdict_names_the_response(make_store: MakeStore):
    store = make_store(2)
    with desk_of(store, fraction=0.0) as desk:
        before = vote(desk, "ana", "second")
        again = desk.undo("ana", key="u1")
        assert again is not None
        assert (again.first, again.second) == (before.first, before.second)
        vote(desk, "ana", "second")
        (stored,) = store.votes()
    said = store.pair(stored.pair_id).responses[int(stored.winner) - 1].text
    assert said == before.second


def test_progress_follows_votes_undo_and_reopening(make_store: MakeStore):
    store = make_store(4)
    with desk_of(store) as desk:
        vote(desk, "ana")
        vote(desk, "ana")
        vote(desk, "ben")
        assert desk.progress("ana") == Progress(mine=2, done=3, total=6)
        for _ in range(2):
            desk.undo("ana", key="u1")
        assert desk.progress("ana") == Progress(mine=1, done=2, total=6)
        assert desk.progress("ben") == Progress(mine=1, done=2, total=6)
    with desk_of(store) as again:
        assert again.progress("ana") == Progress(mine=1, done=2, total=6)


def test_a_vote_needs_a_question_that_was_handed_out(make_store: MakeStore):
    with desk_of(make_store(2)) as desk:
        question = next_of(desk, "ana")
        with pytest.raises(RunConflictError, match="not handed to ben"):
            desk.vote("ben", question.presentation_id, Verdict("tie"), key="k")
        assert desk.question("ben", question.presentation_id) is None


def test_history_shows_what_was_pressed(make_store: MakeStore):
    with desk_of(make_store(3)) as desk:
        for choice in ("second", "both_bad"):
            vote(desk, "ana", choice)  # type: ignore[arg-type]
        assert [past.verdict.winner for past in desk.history("ana")] == ["both_bad", "second"]
        assert desk.history("ben") == []
