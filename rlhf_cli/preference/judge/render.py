"""A case for a judge as chat messages: every text of unknown origin inside a fence it cannot know."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_cli.preference.judge.templates import Template, fill
from rlhf_cli.records import Dialog, Message, Text
from rlhf_cli.run.chance import draw

# What servers' chat templates mark turns with, spelled <|...|> or as below: inside text it would open a turn.
_CONTROL = re.compile(
    r"<(?=\|)|(?<=\|)>|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|\[(?=/?(?:INST|SYSTEM_PROMPT)\])"
    r"|<(?=<SYS>>)|<(?=</SYS>>)|<(?=[｜])"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Two answers to compare; `cut` says which ran into the length limit.

    `principles` are those of this case, beside the judge's own. `past_errors` counts the times this case came to
    nothing before: each allows a full round of fresh attempts.
    """

    id: int
    prompt: Text
    responses: tuple[str, str]
    cut: tuple[bool, bool] = (False, False)
    principles: tuple[str, ...] = field(default=())
    past_errors: int = 0

    def chance(self, seed: int, *purpose: str | int) -> int:
        """Draw a number that depends on what is compared, not on which answer is called 1."""
        return draw(seed, *purpose, repr(self.prompt), *sorted(self.responses))


def render(
    case: Case, template: Template, *, first: int, rubric: str, principles: Sequence[str], seed: int
) -> Dialog:
    """Return the messages that ask about `case`, with response `first` (1 or 2) shown first."""
    tag = _tag(case, seed)
    order = (0, 1) if first == 1 else (1, 0)
    one, two = (
        _answer(name, case.responses[i], cut=case.cut[i], tag=tag)
        for name, i in zip(template.labels[:2], order, strict=True)
    )
    values = {
        "rubric": rubric or template.rubric,
        "principles": "".join(f"- {principle}\n" for principle in (*principles, *case.principles)),
        "conversation": _conversation(case.prompt, tag),
        "first": one,
        "second": two,
        "tag": tag,
    }
    system = (Message("system", fill(template.system, values).strip()),) if template.system else ()
    return (*system, Message("user", fill(template.user, values).strip()))


def _tag(case: Case, seed: int) -> str:
    """Draw a word that occurs in none of the texts: nobody who wrote them can have closed its fence."""
    texts = "".join((repr(case.prompt), *case.responses))
    attempt = 0
    while (tag := f"{case.chance(seed, 'fence', attempt):016x}"[-10:]) in texts:
        attempt += 1
    return tag


def _conversation(prompt: Text, tag: str) -> str:
    if isinstance(prompt, str):
        return _fenced("request", prompt, tag)
    # A role is the data's word too: as a label it keeps to letters.
    return "\n".join(
        _fenced(re.sub(r"[^a-z]", "", turn.role.lower()) or "turn", turn.content, tag) for turn in prompt
    )


def _answer(name: str, text: str, *, cut: bool, tag: str) -> str:
    note = f"\n(answer {name} was cut off by a length limit)" if cut else ""
    return _fenced(f"answer-{name}", text, tag) + note


def _fenced(label: str, text: str, tag: str) -> str:
    return f"<{label}-{tag}>\n{disarm(text)}\n</{label}-{tag}>"


def disarm(text: str) -> str:
    """Put a space into what chat templates mark turns with, so that text cannot open or close one."""
    return _CONTROL.sub(lambda mark: f"{mark[0]} " if mark[0] in "<[" else f" {mark[0]}", text)
