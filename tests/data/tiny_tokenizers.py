"""Tokenizers small enough to work ids out by hand, one for each way real ones differ."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf_cli.models.tokenizer import train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["hello there hello there the sky is blue the sky is"] * 3


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token per byte: `<|end|>` 0, `<|pad|>` 1, "!" 2, printable ASCII c at ord(c) - 31, newline 200, space 222."""
    return train_tokenizer([], 258)


def merging_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level with merges, so that a border between two texts can fall inside a token."""
    return train_tokenizer(WORDS, 290)


def chatml_tokenizer() -> PreTrainedTokenizerBase:
    """One token per byte ("!" 0, newline 198, space 220), `<|im_end|>` 256 the EOS, `<|pad|>` 257, `<|im_start|>` 258.

    `<|im_start|>` is special without having a role, so `all_special_tokens` does not list it.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens(["<|im_end|>", "<|pad|>", "<|im_start|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHATML
    return tokenizer


def trimming_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level with a postprocessor that leaves spaces out of the offsets, as GPT-NeoX's does."""
    tokenizer = merging_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def closing_tokenizer() -> PreTrainedTokenizerBase:
    """Put EOS behind every text by itself."""
    tokenizer = merging_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    return tokenizer


def sentencepiece_tokenizer() -> PreTrainedTokenizerBase:
    """Llama 2's kind: BOS and a space in front of every text, bytes where a character is unknown.

    `<unk>` 0, `<s>` 1, `</s>` 2, byte b 3 + b, then the pieces from 259 on.
    """
    merges = [("t", "i"), ("m", "e"), ("ti", "me"), ("▁", "time"), ("▁", "4")]
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz4", *dict.fromkeys(a + b for a, b in merges)]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {token: i for i, token in enumerate(tokens)}
    inner = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    tokenizer.chat_template = "{{ bos_token }}" + CHATML.replace("<|im_end|>", "{{ eos_token }}")
    return tokenizer


KINDS = {
    "bytes": byte_tokenizer,
    "merging": merging_tokenizer,
    "chatml": chatml_tokenizer,
    "trimming": trimming_tokenizer,
    "closing": closing_tokenizer,
    "sentencepiece": sentencepiece_tokenizer,
}


def spelled(text: str) -> list[int]:
    """Give the ids of printable ASCII under `byte_tokenizer`."""
    return [{" ": 222, "\n": 200}.get(c, ord(c) - 31) for c in text]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def specials_in(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    special = special_ids(tokenizer)
    return [i for i in ids if i in special]
