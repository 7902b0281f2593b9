"""One round of critique and revision: answers in, steps out, and only sound revisions replace an answer.

Bai et al. 2022 (arXiv 2212.08073) section 3.1: a principle is drawn at random, the model says what is wrong with the
answer by it, then writes a better answer.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rlhf_cli.preference.constitution.principles import Asking, Principle, draw_principle
from rlhf_cli.preference.judge.chat import Chat, ChatFailure, ChatReply, ChatRequest
from rlhf_cli.preference.judge.render import disarm
from rlhf_cli.preference.judge.templates import fill
from rlhf_cli.preference.judge.verdict import without_reasoning
from rlhf_cli.records import Message, Text
from rlhf_cli.run.chance import draw

Outcome = Literal["revised", "unchanged", "empty", "cut", "leaked", "failed"]

_BLOCK = 500  # answers whose requests are held in memory at once
_LEAST_LEAK = 20  # characters: a shorter critique may well stand in a good answer
_LABEL = re.compile(
    r"^(?:\*\*)?(?:revision|revised answer|improved answer|answer)\s*:(?:\*\*)?\s*", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"(?:i(?:['’]m| am) (?:really |very |so )?sorry|sorry|i (?:can(?:['’]t|not)|won['’]t|will not)"
    r"|i am (?:not able|unable)|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """The answer to a prompt as it stands."""

    prompt_id: int
    prompt: Text
    answer: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one round did to one answer; `answer` is the one that stands after it.

    `revision` is what the model wrote. Only the outcome "revised" changes the answer: others say why not.
    """

    prompt_id: int
    number: int
    principle: str
    critique: str
    revision: str
    outcome: Outcome
    answer: str


@dataclass(frozen=True, slots=True)
class Reviser:
    """Asks `chat` for critiques and revisions under principles drawn by `seed`."""

    chat: Chat
    asking: Asking
    principles: Sequence[Principle]
    seed: int
    temperature: float
    max_new_tokens: int

    def revise(self, drafts: Iterable[Draft], number: int) -> Iterator[Step]:
        """Yield a step for each draft of round `number` (from 1), in any order.

        Ends early where the chat does. Raises what the chat raises.
        """
        waiting = iter(drafts)
        while block := list(islice(waiting, _BLOCK)):
            critiques = dict(self._ask({draft: self._request(draft, number, None) for draft in block}))
            asked = {
                draft: self._request(draft, number, _said(reply))
                for draft, reply in critiques.items()
                if isinstance(reply, ChatReply)
            }
            for draft, failure in critiques.items():
                if isinstance(failure, ChatFailure):
                    yield self._step(draft, number, "", failure)
            for draft, reply in self._ask(asked):
                critique = critiques[draft]
                assert isinstance(critique, ChatReply)
                yield self._step(draft, number, _said(critique), reply)

    def _ask(self, requests: dict[Draft, ChatRequest]) -> Iterator[tuple[Draft, ChatReply | ChatFailure]]:
        """Yield each draft with its reply; drafts with one request share one reply."""
        drafts: dict[ChatRequest, list[Draft]] = {}
        for draft, request in requests.items():
            drafts.setdefault(request, []).append(draft)
        for request, reply in self.chat.replies(drafts):
            yield from ((draft, reply) for draft in drafts[request])

    def _request(self, draft: Draft, number: int, critique: str | None) -> ChatRequest:
        principle = draw_principle(self.principles, self.seed, draft.prompt_id, number)
        tag = _tag(self.seed, draft, critique or "")
        values = {
            "conversation": disarm(_conversation(draft.prompt)),
            "answer": disarm(draft.answer),
            "principle": principle.critique if critique is None else principle.revision,
            "critique": disarm(critique or ""),
            "tag": tag,
        }
        template = self.asking.critique if critique is None else self.asking.revision
        system = self.asking.system and (Message("system", fill(self.asking.system, values).strip()),)
        purpose = "critique" if critique is None else "revision"
        return ChatRequest(
            (*(system or ()), Message("user", fill(template, values).strip())),
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=draw(self.seed, purpose, draft.prompt_id, number) if self.temperature else 0,
        )

    def _step(self, draft: Draft, number: int, critique: str, reply: ChatReply | ChatFailure) -> Step:
        principle = draw_principle(self.principles, self.seed, draft.prompt_id, number).id
        if isinstance(reply, ChatFailure):
            return Step(draft.prompt_id, number, principle, critique, reply.why, "failed", draft.answer)
        revision = _LABEL.sub("", _said(reply))
        outcome = judge_revision(draft.answer, critique, revision, finished=reply.finished)
        answer = revision if outcome == "revised" else draft.answer
        return Step(draft.prompt_id, number, principle, critique, reply.text, outcome, answer)


def _said(reply: ChatReply) -> str:
    """Return what a model means others to read."""
    return without_reasoning(reply.text).strip()


def judge_revision(answer: str, critique: str, revision: str, *, finished: bool) -> Outcome:
    """Say whether a revision may replace an answer, or what speaks against it."""
    if not revision:
        return "empty"
    if not finished:
        return "cut"
    if revision.split() == answer.split():
        return "unchanged"
    told = " ".join(critique.split())
    if len(told) >= _LEAST_LEAK and told in " ".join(revision.split()):
        return "leaked"
    return "revised"


def is_refusal(answer: str) -> bool:
    """Say whether an answer begins by declining; a model that learns from many of these only declines."""
    return _REFUSAL.match(answer.strip()) is not None


def _conversation(prompt: Text) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def _tag(seed: int, draft: Draft, critique: str) -> str:
    """Draw a word that occurs in none of the texts: nobody who wrote them can have closed its fence."""
    texts = f"{draft.prompt!r}{draft.answer}{critique}"
    attempt = 0
    while (tag := f"{draw(seed, 'fence', draft.prompt_id, attempt):016x}"[-10:]) in texts:
        attempt += 1
    return tag
