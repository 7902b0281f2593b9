"""From encoded prompts to episodes, through any engine."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.decode import completion_text
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.episode import Episode
from rlhf_cli.rollout.engine import Engine, Sampling


def sample_episodes(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    seeds: Sequence[int],
) -> list[Episode]:
    """Answer each prompt once, in order, and decode the answers without their special tokens."""
    completions = engine.generate([prompt.input_ids for prompt in prompts], sampling, seeds)
    return [
        Episode(
            prompt=prompt.record.prompt,
            prompt_ids=tuple(prompt.input_ids),
            completion_ids=completion.token_ids,
            completion_text=completion_text(
                tokenizer, prompt.input_ids, completion.token_ids, sampling.stop_ids
            ),
            finished=completion.finished,
            logprobs=completion.logprobs,
            extra=prompt.record.extra,
            origin=prompt.record.origin,
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
