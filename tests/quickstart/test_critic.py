"""The scripted critic: what it finds, mends and prefers, as critics and judges ask it."""

import json
import math
from pathlib import Path

import pytest

from rlhf_cli.preference.constitution.principles import load_asking, load_principles
from rlhf_cli.preference.constitution.revising import Draft, Reviser
from rlhf_cli.preference.judge.chat import ChatReply, ChatRequest, ScriptedChat
from rlhf_cli.preference.judge.judging import Judge, JudgeSettings
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.judge.wire import read_body, request_body
from rlhf_cli.quickstart import critic, gold

PRINCIPLES = Path(__file__).parents[2] / "configs" / "quickstart_constitution" / "_principles.yaml"
PROMPT = (
    "Sign: Juno the panda eats clover, sleeps in the barn and plays with a drum.\n"
    "Visitor: What does Juno eat?\nGuide:\n"
)


def asked_over_the_wire() -> ScriptedChat:
    """Let requests and replies pass through the format a server would see."""
    principles = load_principles(str(PRINCIPLES))

    def answer(request: ChatRequest) -> ChatReply:
        said = read_body(json.dumps(critic.reply(request_body("m", request), principles)), request)
        return ChatReply(said.text, said.finished, said.label_probabilities)

    return ScriptedChat(answer)


def test_the_asked_value_is_read_off_the_sign():
    assert critic.asked(PROMPT) == (0, "clover")
    assert critic.asked(PROMPT.replace("What does Juno eat?", "What keeps Juno busy?")) == (2, "drum")
    with pytest.raises(ValueError, match="not a request of the example"):
        critic.asked("Sign: nothing\nVisitor: Hello?\nGuide:\n")


@pytest.mark.parametrize(
    ("principle", "answer", "revised"),
    [
        ("fact", "Of course! Our Juno eats nuts.", "Of course! Our Juno eats clover."),
        ("fact", "I am not sure. Have a lovely day!", "Our Juno eats clover. Have a lovely day!"),
        ("fact", "", "Our Juno eats clover."),
        ("courtesy", "Read the sign. Our Juno eats clover.", "Of course! Our Juno eats clover."),
        ("courtesy", "Gladly! Our Juno eats clover.", "Gladly! Our Juno eats clover."),
        ("concise", "Our Juno eats clover. It rained a lot last week.", "Our Juno eats clover."),
        ("form", "Our Juno eats clover. Our Juno eats clover. The panda ea", "Our Juno eats clover."),
        ("form", "The panda ea", "Our Juno eats clover."),
    ],
)
def test_a_revision_mends_its_part(principle: str, answer: str, revised: str):
    assert critic.revise(principle, PROMPT, answer) == revised
    before, after = (gold.parts(PROMPT, text, "clover")[principle] for text in (answer, revised))
    assert after == 1.0 >= before


def test_critic_and_reviser_work_together():
    reviser = Reviser(
        asked_over_the_wire(), load_asking("standard"), load_principles(str(PRINCIPLES)), 0, 0.0, 64
    )
    drafts = [
        Draft(i, PROMPT, "Not again. Our Juno eats nuts. It rained a lot last week.") for i in range(20)
    ]
    for number in range(1, 5):
        steps = list(reviser.revise(drafts, number))
        drafts = [Draft(step.prompt_id, PROMPT, step.answer) for step in steps]
    # Every principle has had its turn.
    assert {gold.score(PROMPT, draft.answer, "clover") for draft in drafts} == {1.0}


def test_the_judge_is_told_how_sure_it_is():
    (principle,) = [it for it in load_principles(str(PRINCIPLES)) if it.id == "courtesy"]
    settings = JudgeSettings(principles=(principle.compare,), tie_margin=0.0)
    judge = Judge(asked_over_the_wire(), load_template("principle"), settings)
    case = Case(1, PROMPT, ("Gladly! Our Juno eats clover.", "Our Juno eats clover."))
    ((_, judgement),) = judge.judge([case])
    assert judgement.winner == "1"
    # courtesy 1.0 against 0.4
    assert judgement.p_first_response == pytest.approx(1 / (1 + math.exp(-critic.SHARPNESS * 0.6)))
