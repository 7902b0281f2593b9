"""A judge: cases in, judgements out; both orders asked, unreadable replies asked again, errors told as errors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rlhf_cli.preference.judge.chat import Chat, ChatFailure, ChatReply, ChatRequest
from rlhf_cli.preference.judge.render import Case, render
from rlhf_cli.preference.judge.templates import Template
from rlhf_cli.preference.judge.verdict import Judgement, Reading, Unreadable, combine, read_reply

_BLOCK = 500  # cases whose requests are held in memory at once
_RETRY_TEMPERATURE = 0.7  # at 0 another seed would change nothing


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge asks and decides; see the configuration's Judge section for each."""

    orders: Literal["both", "random"] = "both"
    tie_margin: float = 0.1
    min_label_mass: float = 0.2
    clamp: float = 0.0
    attempts: int = 3
    temperature: float = 0.0
    rubric: str = ""
    principles: tuple[str, ...] = ()
    num_principles: int | None = None
    seed: int = 0


class Judge:
    """Asks `chat` with `template`. `name` is the chat's."""

    def __init__(self, chat: Chat, template: Template, settings: JudgeSettings) -> None:
        self.name = chat.name
        self._chat = chat
        self._template = template
        self._settings = settings

    def judge(self, cases: Iterable[Case]) -> Iterator[tuple[Case, Judgement]]:
        """Yield each case as soon as it is judged; ends early where the chat does. Raises what the chat raises."""
        waiting = iter(cases)
        while block := list(islice(waiting, _BLOCK)):
            num_judged = 0
            for judged in _Block(block, self._chat, self._template, self._settings).judge():
                num_judged += 1
                yield judged
            if num_judged < len(block):  # the chat was asked to stop
                return

    def requests(self, case: Case) -> list[ChatRequest]:
        """Return the first requests a case needs: to estimate what judging will cost."""
        block = _Block([case], self._chat, self._template, self._settings)
        return [block.request(case, first, 0) for first in orders_of(case, self._settings)]


def orders_of(case: Case, settings: JudgeSettings) -> tuple[int, ...]:
    """Return which response, 1 or 2, is shown first, for each time the case is asked."""
    if settings.orders == "both":
        return (1, 2)
    ahead = 1 if case.responses[0] <= case.responses[1] else 2
    # The coin is tossed for the texts, so that exchanging them changes nothing but their names.
    return (ahead if case.chance(settings.seed, "order") % 2 else 3 - ahead,)


class _Block:
    """The cases that are open together."""

    def __init__(
        self, cases: Sequence[Case], chat: Chat, template: Template, settings: JudgeSettings
    ) -> None:
        self._cases = cases
        self._chat = chat
        self._template = template
        self._settings = settings
        self._found: dict[int, dict[int, Reading | Unreadable]] = {}
        self._seconds: dict[int, float] = {}

    def judge(self) -> Iterator[tuple[Case, Judgement]]:
        """Ask in rounds: everything, then what could not be read, with another seed."""
        waiting = [(case, first) for case in self._cases for first in orders_of(case, self._settings)]
        attempt = 0
        while waiting:
            asked: dict[ChatRequest, list[tuple[Case, int]]] = {}
            for case, first in waiting:
                asked.setdefault(self.request(case, first, attempt), []).append((case, first))
            waiting = []
            for request, outcome in self._chat.replies(asked):
                for case, first in asked[request]:
                    reading = self._read(case, outcome)
                    is_last = attempt + 1 >= self._settings.attempts * (1 + case.past_errors)
                    if isinstance(reading, Unreadable) and isinstance(outcome, ChatReply) and not is_last:
                        waiting.append((case, first))
                    elif judgement := self._decide(case, first, reading):
                        yield case, judgement
            attempt += 1

    def request(self, case: Case, first: int, attempt: int) -> ChatRequest:
        settings, template = self._settings, self._template
        messages = render(
            case,
            template,
            first=first,
            rubric=settings.rubric,
            principles=self._principles(case),
            seed=settings.seed,
        )
        # The seed belongs to what is shown, so that a judge does not know which answer is called 1.
        shown_first = case.responses[first - 1]
        temperature = max(settings.temperature, _RETRY_TEMPERATURE) if attempt else settings.temperature
        return ChatRequest(
            messages,
            template.max_tokens,
            temperature=temperature,
            seed=case.chance(settings.seed, "judge", template.digest, shown_first, attempt) % 2**31,
            labels=tuple(template.labels),
            label_prefix=template.label_prefix,
        )

    def _principles(self, case: Case) -> list[str]:
        """Draw the principles of a case, in the order they are configured."""
        settings = self._settings
        if settings.num_principles is None:
            return list(settings.principles)
        by_chance = sorted(
            range(len(settings.principles)), key=lambda i: case.chance(settings.seed, "principle", i)
        )
        return [settings.principles[i] for i in sorted(by_chance[: settings.num_principles])]

    def _read(self, case: Case, outcome: ChatReply | ChatFailure) -> Reading | Unreadable:
        if isinstance(outcome, ChatFailure):
            return Unreadable(outcome.why)
        self._seconds[case.id] = self._seconds.get(case.id, 0.0) + outcome.seconds
        return read_reply(outcome, self._template, min_label_mass=self._settings.min_label_mass)

    def _decide(self, case: Case, first: int, reading: Reading | Unreadable) -> Judgement | None:
        """Note one order's verdict; return the judgement once all orders have theirs."""
        found = self._found.setdefault(case.id, {})
        found[first] = reading
        orders = orders_of(case, self._settings)
        if set(found) < set(orders):
            return None
        seconds = round(self._seconds.get(case.id, 0.0), 3)
        faults = [it.why for it in found.values() if isinstance(it, Unreadable)]
        if faults:
            return Judgement("error", None, faults[0], seconds)
        readings = [(shown, it) for shown in orders if isinstance(it := found[shown], Reading)]
        settings = self._settings
        return combine(readings, tie_margin=settings.tie_margin, clamp=settings.clamp, seconds=seconds)
