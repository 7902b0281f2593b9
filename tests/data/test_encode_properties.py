"""What holds for any text and any tokenizer: generation's prompt ids, no injected markup, nothing lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import KINDS, special_ids, specials_in
from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.encode import Encoder
from rlhf_cli.records import Demonstration, Message, Prompt, Text

TOKENIZERS = {name: make() for name, make in KINDS.items()}
SPECIALS = ["<|end|>", "<|pad|>", "<|im_end|>", "<|im_start|>", "<s>", "</s>", "<unk>"]
pieces = st.sampled_from(
    [*SPECIALS, "hello", " there", "ti", "me", " ", "  ", "\n", "\n\n", "é", "🙂", "\t", "<|"]
)
texts = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=6).map("".join)
dialogs = st.lists(texts, min_size=1, max_size=3).map(
    lambda words: tuple(Message(("user", "assistant")[i % 2], w) for i, w in enumerate(words))
)
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, stop_ids=(), max_length=10_000)


@each_tokenizer
@settings(deadline=None, max_examples=60)
@given(prompt=st.one_of(texts, dialogs), answer=texts)
def test_a_rows_prompt_is_what_generation_sees(tokenizer, prompt: Text, answer: str) -> None:
    (row,) = encoder_of(tokenizer).demonstrations([Demonstration(prompt, answer, "f:1")]) or (None,)
    asked = encoder_of(tokenizer).prompts([Prompt(prompt, "f:1")], max_prompt_length=10_000)
    if row is None or not asked:
        assert prompt == ""
    else:
        assert list(row.input_ids[: row.num_prompt]) == asked[0].input_ids


@each_tokenizer
@settings(deadline=None, max_examples=60)
@given(prompt=texts, answer=texts)
def test_plain_rows_hold_no_special_token_of_the_text(tokenizer, prompt: str, answer: str) -> None:
    for row in encoder_of(tokenizer).demonstrations([Demonstration(prompt, answer, "f:1")]):
        front = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        assert specials_in(row.input_ids, tokenizer) == [*front, tokenizer.eos_token_id]
        assert list(row.loss_mask) == [t >= max(row.num_prompt, 1) for t in range(len(row.input_ids))]


@each_tokenizer
@settings(deadline=None, max_examples=60)
@given(dialog=dialogs)
def test_dialogs_hold_the_special_tokens_of_the_template_only(tokenizer, dialog) -> None:
    benign = tuple(Message(m.role, "x") for m in dialog)
    asked, expected = (
        encoder_of(tokenizer).prompts([Prompt(d, "f:1")], max_prompt_length=10_000)[0].input_ids
        for d in (dialog, benign)
    )
    assert specials_in(asked, tokenizer) == specials_in(expected, tokenizer)


@each_tokenizer
@settings(deadline=None, max_examples=60)
@given(dialog=dialogs)
def test_loss_never_leaves_assistant_turns(tokenizer, dialog) -> None:
    """The trained spans of a conversation, decoded one by one, are its answers with their stop tokens."""
    turns = [Message("user", "q"), *(m for m in dialog if m.role == "user"), Message("assistant", "last")]
    conversation = tuple(message for turn in turns[:-1] for message in (turn, turns[-1]))
    for row in encoder_of(tokenizer).demonstrations([Demonstration((), conversation, "f:1")]):
        spans, open_span = [], False
        for token, trained in zip(row.input_ids, row.loss_mask, strict=True):
            if trained and not open_span:
                spans.append([])
            if trained:
                spans[-1].append(token)
            open_span = trained
        assert [tokenizer.decode(span[:-1]).strip() for span in spans] == ["last"] * (len(turns) - 1)
        assert {span[-1] for span in spans} == {tokenizer.eos_token_id}


@each_tokenizer
@settings(deadline=None, max_examples=60)
@given(prompt=texts, answer=texts)
def test_nothing_of_the_text_is_lost(tokenizer, prompt: str, answer: str) -> None:
    words = prompt + answer.removesuffix(tokenizer.eos_token)
    for row in encoder_of(tokenizer).demonstrations([Demonstration(prompt, answer, "f:1")]):
        inner = [i for i in row.input_ids if i not in special_ids(tokenizer)]
        assert tokenizer.decode(inner, clean_up_tokenization_spaces=False).removeprefix(
            " "
        ) == words.removeprefix(" ")
