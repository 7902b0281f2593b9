"""What a chat model is to a judge or a critic: requests in, replies out as they come, and the scripted fake."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from rlhf_cli.records import Dialog


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a chat model; equal requests get one reply.

    `labels` are the short words whose probabilities are wanted where the reply writes one: right behind
    `label_prefix`, or at its very beginning when that is "".
    """

    messages: Dialog
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    labels: tuple[str, ...] = ()
    label_prefix: str = ""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model said, without the request; `finished` is False where a length limit cut it off.

    `label_probabilities` are P(label) at the place of the verdict, not normalised over the labels; None where
    the model does not tell. `cost` is in the currency of the configured prices; `attempts` counts the HTTP
    requests it took.
    """

    text: str
    finished: bool = True
    label_probabilities: Mapping[str, float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class ChatFailure:
    """Why there is no reply to this one request; others may have theirs."""

    why: str


class Chat(Protocol):
    """A model that answers conversations. `name` goes with every vote, `identity` tells its replies from others'."""

    name: str
    identity: str

    def replies(
        self, requests: Iterable[ChatRequest]
    ) -> Iterator[tuple[ChatRequest, ChatReply | ChatFailure]]:
        """Yield each request with its reply as soon as that is there, in any order.

        Ends early when asked to stop. Raises UnavailableError when there is no hope of replies, Preempted when
        the budget is spent; what was yielded before stands.
        """
        ...


class ScriptedChat:
    """Answers with a function; keeps the requests it was asked. A string is a reply, an exception is raised."""

    name = "script"
    identity = "script"

    def __init__(self, answer: Callable[[ChatRequest], str | ChatReply | ChatFailure]) -> None:
        self._answer = answer
        self.asked: list[ChatRequest] = []

    def replies(
        self, requests: Iterable[ChatRequest]
    ) -> Iterator[tuple[ChatRequest, ChatReply | ChatFailure]]:
        for request in requests:
            self.asked.append(request)
            said = self._answer(request)
            yield request, ChatReply(said) if isinstance(said, str) else said
