"""Token ids alone are those that come with their places, whatever the tokenizer was told before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import KINDS, byte_tokenizer, merging_tokenizer
from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.tokens import TextTokens

TOKENIZERS = {name: make() for name, make in KINDS.items()}
SENTINEL = chr(0x10F000)
texts = st.lists(
    st.one_of(st.sampled_from(["hello", " there", "\n", "<|end|>", "<s>", SENTINEL]), st.text(max_size=4))
).map("".join)


def tokens_of(tokenizer: PreTrainedTokenizerBase) -> TextTokens:
    return TextTokens(tokenizer, {str(tokenizer.eos_token): SENTINEL})


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@settings(deadline=None, max_examples=40)
@given(batch=st.lists(texts, max_size=4))
def test_ids_are_those_that_come_with_places(tokenizer, batch: list[str]) -> None:
    tokens = tokens_of(tokenizer)
    assert tokens.ids_of(batch) == [ids for ids, _ in tokens.of(batch)]


def test_what_a_tokenizers_file_says_of_length_is_not_heeded() -> None:
    tokenizer = merging_tokenizer()
    text = "hello there the sky is blue"
    expected = tokens_of(tokenizer).of([text])[0][0]
    tokenizer.backend_tokenizer.enable_truncation(2)
    assert tokens_of(tokenizer).ids_of([text, ""]) == [expected, []]
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert tokens_of(tokenizer).ids_of([text, ""]) == [expected, []]


def test_spelling_a_special_token_out_does_not_last() -> None:
    tokens = tokens_of(byte_tokenizer())
    special, spelled = [0], [ord(c) - 31 for c in "<|end|>"]
    assert tokens.ids_of(["<|end|>", SENTINEL, "<|end|>"]) == [special, spelled, special]
    assert tokens.of([SENTINEL])[0][0] == spelled
    assert tokens.ids_of(["<|end|>"]) == [special]
