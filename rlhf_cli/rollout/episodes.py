"""From encoded prompts to episodes, through any engine."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.decode import completion_text
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import RlhfError
from rlhf_cli.rollout.engine import Completion, Engine, Sampling
from rlhf_cli.run.ranks import Ranks


def sample_episodes(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    seeds: Sequence[int],
) -> list[Episode]:
    """Answer each prompt once, in order, and decode the answers without their special tokens."""
    completions = engine.generate([prompt.input_ids for prompt in prompts], sampling, seeds)
    return to_episodes(tokenizer, prompts, completions, sampling.stop_ids)


def sample_together(
    engine: Engine,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    group_size: int,
    ranks: Ranks,
) -> list[Completion]:
    """Answer each prompt once, in order; each process answers some groups of neighbours, and all get everything.

    Raises, together, what any engine raises.
    """
    own = [i for i in range(len(prompts)) if i // group_size % ranks.size == ranks.index]
    sampled: list[Completion] = []
    failure: RlhfError | None = None
    try:
        if own:
            sampled = engine.generate([prompts[i].input_ids for i in own], sampling, [seeds[i] for i in own])
    except RlhfError as error:
        failure = error
    ranks.agree(failure)
    if ranks.size == 1:
        return sampled
    told = [[i, one.token_ids, one.logprobs, one.finished] for i, one in zip(own, sampled, strict=True)]
    everything = sorted(each for share in ranks.gather(told) for each in share)
    return [Completion(tuple(ids), tuple(logprobs), finished) for _, ids, logprobs, finished in everything]


def to_episodes(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    stop_ids: Sequence[int],
) -> list[Episode]:
    """Decode the answers to prompts, without their special tokens."""
    return [
        Episode(
            prompt=prompt.record.prompt,
            prompt_ids=tuple(prompt.input_ids),
            completion_ids=completion.token_ids,
            completion_text=completion_text(tokenizer, prompt.input_ids, completion.token_ids, stop_ids),
            finished=completion.finished,
            logprobs=completion.logprobs,
            extra=prompt.record.extra,
            origin=prompt.record.origin,
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
