"""From sampled token ids back to the text of an answer."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase


def completion_text(
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    stop_ids: Collection[int],
) -> str:
    """Decode what follows the prompt, without the closing stop token and any special token inside.

    Decoded behind its prompt: alone, a tokenizer of the SentencePiece kind drops the space an answer begins with.
    """
    ids = completion_ids[:-1] if completion_ids and completion_ids[-1] in stop_ids else completion_ids
    prompt, whole = _decode(tokenizer, prompt_ids), _decode(tokenizer, [*prompt_ids, *ids])
    # A character split between prompt and answer decodes differently once it is whole.
    return whole[len(prompt) :] if whole.startswith(prompt) else _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
