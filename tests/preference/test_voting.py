"""From questions to stored votes: order un-blinded, resumed where it stopped, nothing lost to kill -9."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_store import MakeStore

from rlhf_cli.errors import DataError
from rlhf_cli.preference import rules
from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.labeler import (
    Choice,
    Question,
    ScriptedLabeler,
    Stop,
    Undo,
    Verdict,
    blind,
    question_of,
    unblind,
)
from rlhf_cli.preference.rules import RuleLabeler, longer, shorter
from rlhf_cli.preference.store import Store, Vote
from rlhf_cli.preference.voting import ask_machine, ask_person
from rlhf_cli.records import Message, last_user_text
from rlhf_cli.run.chance import draw, fraction

CHOICES: list[Choice] = ["first", "second", "tie", "both_bad", "skip"]
MIRROR: dict[Choice, Choice] = {"first": "second", "second": "first"}


def test_a_verdict_names_the_response_and_not_its_place():
    assert [unblind("first", first) for first in (1, 2)] == ["1", "2"]
    assert [unblind("second", first) for first in (1, 2)] == ["2", "1"]
    assert [unblind(c, 2) for c in CHOICES[2:]] == ["tie", "both_bad", "skip"]


@given(st.sampled_from(CHOICES), st.sampled_from([1, 2]))
def test_swapping_the_display_swaps_nothing_canonical(choice: Choice, first: int):
    assert unblind(choice, first) == unblind(MIRROR.get(choice, choice), 3 - first)
    assert blind(unblind(choice, first), first) == choice


@pytest.mark.parametrize("rule", [longer, shorter])
def test_a_rule_votes_alike_in_either_order(make_store: MakeStore, rule: rules.Rule):
    store = make_store([("short", "much longer"), ("short", "much longer"), ("much longer", "short")] * 4)
    assert list(ask_machine(store, RuleLabeler(rule, name="r"), seed=0)) == list(range(1, 13))
    assert {vote.first for vote in store.votes()} == {1, 2}
    expected = ["2", "2", "1"] if rule is longer else ["1", "1", "2"]
    assert [v.winner for v in store.votes()] == expected * 4


def test_questions_are_blind_and_numbered(make_store: MakeStore):
    store = make_store(2)
    labeler = ScriptedLabeler([Verdict("first", "clear", 2.5), Verdict("skip")])
    assert list(ask_machine(store, labeler, seed=0)) == [1, 2]
    one, two = store.votes()
    assert labeler.asked == [
        question_of(store.pair(1), one.first, 1, 2),
        question_of(store.pair(2), two.first, 2, 2),
    ]
    sides = ("one 1", "two 1")
    shown = sides if one.first == 1 else sides[::-1]
    assert labeler.asked[0] == Question(1, "ask 1", *shown, 1, 2, extra={"key": 1})
    assert one == Vote(1, "1" if one.first == 1 else "2", "script", "clear", 2.5, first=one.first)
    assert two.winner == "skip"


def test_a_machine_that_stopped_goes_on_at_the_next(make_store: MakeStore):
    store = make_store(4)
    assert list(ask_machine(store, ScriptedLabeler([Verdict("tie"), Stop()]), seed=0)) == [1]
    assert (
        next(ask_machine(store, ScriptedLabeler(repeat(Verdict("tie"))), seed=0)) == 2
    )  # and whoever asks stops
    again = ScriptedLabeler(repeat(Verdict("skip")))
    assert list(ask_machine(store, again, seed=0)) == [3, 4]
    assert [(q.pair_id, q.number, q.total) for q in again.asked] == [(3, 3, 4), (4, 4, 4)]
    assert [v.winner for v in store.votes()] == ["tie", "tie", "skip", "skip"]


def open_desk(store: Store) -> Desk:
    return Desk(store, votes_per_pair=1, overlap_fraction=0, seed=0)


def test_a_person_who_stopped_goes_on_at_the_same_question(make_store: MakeStore):
    store = make_store(4)
    with open_desk(store) as desk:
        first = ScriptedLabeler([Verdict("tie"), Stop()])
        assert list(ask_person(desk, first)) == [1]
    with open_desk(store) as desk:
        again = ScriptedLabeler(repeat(Verdict("skip")))
        assert list(ask_person(desk, again)) == [2, 3, 4]
    assert again.asked[0] == first.asked[1]
    assert [(q.pair_id, q.number, q.total) for q in again.asked] == [(2, 2, 4), (3, 3, 4), (4, 4, 4)]
    assert [v.winner for v in store.votes()] == ["tie", "skip", "skip", "skip"]


def test_undo_asks_the_last_question_again(make_store: MakeStore):
    store = make_store(3)
    first_time = [Undo(), Verdict("first"), Verdict("first"), Undo(), Undo(), Verdict("tie")]
    labeler = ScriptedLabeler(chain(first_time, repeat(Verdict("skip"))))
    with open_desk(store) as desk:
        assert list(ask_person(desk, labeler)) == [0, 1, 2, 1, 0, 1, 2, 3]
    assert [q.pair_id for q in labeler.asked] == [1, 1, 2, 3, 2, 1, 2, 3]
    assert [v.winner for v in store.votes()] == ["tie", "skip", "skip"]


def test_noise_flips_the_pair_and_not_the_visit(make_store: MakeStore):
    questions = [Question(i, "p", "longer answer", "short", 1, 1) for i in range(1000)]
    labeler = RuleLabeler(longer, name="r", noise=0.2, seed=3)
    votes = [labeler.label(q).winner for q in questions]
    assert votes == [labeler.label(q).winner for q in questions]
    assert 160 <= Counter(votes)["second"] <= 240
    other_seed = RuleLabeler(longer, name="r", noise=0.2, seed=4)
    assert votes != [other_seed.label(q).winner for q in questions]
    swapped = [Question(q.pair_id, "p", q.second, q.first, 1, 1) for q in questions]
    assert [labeler.label(q).winner for q in swapped] == [MIRROR[v] for v in votes]


def test_a_tie_stays_a_tie_under_noise():
    labeler = RuleLabeler(longer, name="r", noise=1.0)
    assert labeler.label(Question(1, "p", "same", "size", 1, 1)) == Verdict("tie")
    assert labeler.label(Question(1, "p", "longer", "size", 1, 1)) == Verdict("second")


@pytest.mark.parametrize("answer", [float("nan"), -0.1, 1.1, None, "first"])
def test_a_rule_must_return_a_probability(answer: object):
    labeler = RuleLabeler(lambda *_: answer, name="mine:rule")  # type: ignore[arg-type,return-value]
    with pytest.raises(DataError, match="mine:rule returned"):
        labeler.label(Question(7, "p", "a", "b", 1, 1))


def test_a_rule_sees_the_prompt_as_text_and_the_other_columns():
    seen = []

    def rule(prompt: str, first: str, second: str, extra: object) -> float:
        seen.append((prompt, first, second, extra))
        return 0.75

    assert RuleLabeler(rule, name="r").label(
        Question(1, "p", "a", "b", 1, 1, extra={"answer": 4})
    ) == Verdict("first")
    assert seen == [("p", "a", "b", {"answer": 4})]
    one, two = Message("user", "hi"), Message("assistant", "yes")
    assert last_user_text((one,)) == "hi"
    assert last_user_text((one, two, Message("user", "go on"))) == "go on"
    assert last_user_text((two,)) == ""


def test_chance_belongs_to_its_names():
    assert draw(0, "order", 1) == draw(0, "order", 1)
    assert len({draw(s, n, i) for s in (0, 1) for n in ("order", "noise") for i in range(50)}) == 200
    values = [fraction(5, "x", i) for i in range(2000)]
    assert all(0 <= v < 1 for v in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03


CHILD = """
import sys
from pathlib import Path
from rlhf_cli.preference.labeler import Verdict
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.voting import ask_machine

class Acknowledging:
    name, last = "child", None
    def label(self, question):
        if self.last:
            sys.stdout.write(f"{self.last}\\n"); sys.stdout.flush()
        self.last = question.pair_id
        return Verdict(("first", "second", "tie", "skip")[question.pair_id % 4])

for _ in ask_machine(Store(Path(sys.argv[1])), Acknowledging(), seed=0):
    pass
"""


def test_kill_9_loses_no_acknowledged_vote(make_store: MakeStore):
    store = make_store(4000)
    acknowledged: list[int] = []
    for round_number in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(store.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        acknowledged.append(int(child.stdout.readline()))
        time.sleep(random.Random(round_number).uniform(0.01, 0.15))
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().splitlines() if line]
        child.wait()
        child.stdout.close()
    assert len(acknowledged) == len(set(acknowledged)) > 5
    voted = [vote.pair_id for vote in store.votes()]
    assert len(voted) == len(set(voted)) < 4000
    assert set(acknowledged) <= set(voted)
    assert store.rows("PRAGMA integrity_check")[0][0] == "ok"
    rows = store.rows("SELECT COUNT(*) FROM judgements")[0][0]
    assert rows == len(voted)
    assert store.undecided("child") == sorted(set(range(1, 4001)) - set(voted))
