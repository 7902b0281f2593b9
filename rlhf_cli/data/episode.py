"""A sampled answer, and the row of tokens it makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rlhf_cli.data.encode import EncodedText
from rlhf_cli.records import Text


@dataclass(frozen=True, slots=True)
class Episode:
    """One sampled answer.

    `completion_ids` holds the closing EOS of a `finished` one, `completion_text` never does; `extra` holds the other
    columns of the prompt's row; `logprobs` are what the engine says of each of `completion_ids`, in nats.
    """

    prompt: Text
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_text: str
    finished: bool
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    logprobs: tuple[float, ...] = ()
    origin: str = "sampled"


def row_of(episode: Episode) -> EncodedText:
    """Lay an episode out as one row whose trained tokens are the answer's."""
    num_prompt, num_response = len(episode.prompt_ids), len(episode.completion_ids)
    ids = [*episode.prompt_ids, *episode.completion_ids]
    return EncodedText(ids, [False] * num_prompt + [True] * num_response, num_prompt, episode.origin)
