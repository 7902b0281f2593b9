"""Token ids and loss masks, worked by hand on tokenizers of one token per byte."""

import json
from pathlib import Path

import pytest
from tiny_tokenizers import (
    CHATML,
    byte_tokenizer,
    chatml_tokenizer,
    closing_tokenizer,
    sentencepiece_tokenizer,
    spelled,
    trimming_tokenizer,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf_cli.data.encode import EncodedText, Encoder
from rlhf_cli.data.report import render_sample
from rlhf_cli.models.tokenizer import train_tokenizer
from rlhf_cli.records import Comparison, Demonstration, Message, Prompt, Text

SHARED = Path(__file__).parents[3] / "shared"
DIALOG = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
ORACLE_ROWS = [("2+2=", " 4"), ("hi", " hello there"), ("the sky is", " blue")]


def encoder(tokenizer: PreTrainedTokenizerBase | None = None, **options) -> Encoder:
    return Encoder(tokenizer or byte_tokenizer(), stop_ids=options.pop("stop_ids", ()), **options)


def encode(
    prompt: Text, completion: Text, tokenizer: PreTrainedTokenizerBase | None = None, **options
) -> EncodedText:
    loss_on = options.pop("loss_on", "completion")
    rows = encoder(tokenizer, **options).demonstrations(
        [Demonstration(prompt, completion, "f:1")], loss_on=loss_on
    )
    assert len(rows) == 1
    return rows[0]


def shown(prompt: Text, completion: Text, tokenizer: PreTrainedTokenizerBase | None = None, **options) -> str:
    tokenizer = tokenizer or byte_tokenizer()
    return render_sample(encode(prompt, completion, tokenizer, **options), tokenizer)


def with_template(template: str) -> PreTrainedTokenizerBase:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_plain_row_by_hand() -> None:
    row = encode("2+2=", " 4")
    assert list(row.input_ids) == [19, 12, 19, 30, 222, 21, 0]
    assert list(row.loss_mask) == [False] * 4 + [True] * 3
    assert (row.num_prompt, row.origin) == (4, "f:1")


def test_a_dialog_row_by_hand() -> None:
    row = encode((Message("user", "hi"),), (Message("assistant", "yo"),))
    head = "<|user|>\nhi\n<|assistant|>\n"
    assert list(row.input_ids) == [*spelled(head), *spelled("yo"), 0]
    assert list(row.loss_mask) == [False] * len(head) + [True] * 3
    assert row.num_prompt == len(head)


def labels(rows: list[EncodedText], width: int) -> list[list[int]]:
    padded = [[i if m else -100 for i, m in zip(r.input_ids, r.loss_mask, strict=True)] for r in rows]
    return [row + [-100] * (width - len(row)) for row in padded]


def test_ids_and_labels_are_the_oracles() -> None:
    rows = encoder(chatml_tokenizer()).demonstrations([Demonstration(*pair, "f:1") for pair in ORACLE_ROWS])
    no = -100
    assert [list(row.input_ids) for row in rows] == [
        [17, 10, 17, 28, 220, 19, 256],
        [71, 72, 220, 71, 68, 75, 75, 78, 220, 83, 71, 68, 81, 68, 256],
        [83, 71, 68, 220, 82, 74, 88, 220, 72, 82, 220, 65, 75, 84, 68, 256],
    ]
    assert labels(rows, 16) == [
        [no, no, no, no, 220, 19, 256, no, no, no, no, no, no, no, no, no],
        [no, no, 220, 71, 68, 75, 75, 78, 220, 83, 71, 68, 81, 68, 256, no],
        [no, no, no, no, no, no, no, no, no, no, 220, 65, 75, 84, 68, 256],
    ]


@pytest.mark.skipif(not (SHARED / "oracle").exists(), reason="the oracle's files are not here")
def test_ids_and_labels_on_the_oracles_own_tokenizer() -> None:
    oracle = json.loads((SHARED / "oracle/oracle.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "oracle/tiny-qwen2")
    rows = encoder(tokenizer).demonstrations([Demonstration(*pair, "f:1") for pair in ORACLE_ROWS])
    expected = oracle["sft_prompt_completion"]
    assert labels(rows, 16) == expected["labels"]
    assert [[*row.input_ids] + [257] * (16 - len(row.input_ids)) for row in rows] == expected["input_ids"]
    pairs = [
        ("2+2=", " 4", " five!"), ("hi", " hello there", " no"), ("the sky is", " blue", " green"),
    ]  # fmt: skip
    encoded = encoder(tokenizer).comparisons([Comparison(*texts, "f:1") for texts in pairs])
    expected = oracle["dpo_sigmoid"]
    sides = [pair.chosen for pair in encoded] + [pair.rejected for pair in encoded]
    assert [[*row.input_ids] + [257] * (17 - len(row.input_ids)) for row in sides] == expected["input_ids"]
    masks = [[int(m) for m in row.loss_mask] + [0] * (17 - len(row.loss_mask)) for row in sides]
    assert masks == expected["completion_mask"]


@pytest.mark.parametrize(
    ("loss_on", "expected"),
    [
        ("completion", "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n"
                       "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n⟦d<|im_end|>⟧"),
        ("all", "<|im_start|>⟦user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>⟧"),
    ],
)  # fmt: skip
def test_a_conversation_trains_assistant_turns_up_to_their_eos(loss_on: str, expected: str) -> None:
    assert shown((), DIALOG, chatml_tokenizer(), loss_on=loss_on) == expected


def test_turns_of_the_prompt_train_only_when_asked() -> None:
    one = shown(DIALOG[:3], DIALOG[3:], chatml_tokenizer())
    assert one.startswith(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user"
    )
    both = shown(DIALOG[:3], DIALOG[3:], chatml_tokenizer(), loss_on="assistant")
    assert both == shown((), DIALOG, chatml_tokenizer())


def test_a_conversation_ends_with_its_last_trained_turn() -> None:
    assert shown((), (*DIALOG, Message("user", "more")), chatml_tokenizer()) == shown(
        (), DIALOG, chatml_tokenizer()
    )


def test_a_conversation_without_an_answer_is_dropped() -> None:
    some = encoder(chatml_tokenizer())
    alone = (Message("assistant", "hey"),)
    assert some.demonstrations([Demonstration((), d, "f:1") for d in (DIALOG[:1], alone)]) == []
    assert some.tally.counts["dropped: nothing in it to train on"] == 2


def test_a_template_without_eos_gets_one_at_the_end() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = "user: a\nassistant: ⟦b\n⟧user: c\nassistant: ⟦d\n<|im_end|>⟧"
    assert shown((), DIALOG, with_template(template)) == row


def test_a_template_that_trims() -> None:
    tokenizer = with_template(CHATML.replace("m.content", "m.content | trim"))
    padded = tuple(Message(m.role, f" {m.content}\n") for m in DIALOG)
    assert shown((), padded, tokenizer) == shown((), DIALOG, chatml_tokenizer())


def test_every_stop_of_the_template_ends_a_turn() -> None:
    """A template whose end of turn is not the tokenizer's EOS, but is in the generation config."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|eot|>"]})
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "<|eot|>")
    stop = tokenizer.convert_tokens_to_ids("<|eot|>")
    row = encode(DIALOG[:1], DIALOG[1:2], tokenizer, stop_ids=(stop,))
    assert list(row.input_ids[-2:]) == [*spelled("b"), stop]
    without = encode(DIALOG[:1], DIALOG[1:2], tokenizer)
    assert list(without.input_ids[-4:]) == [*spelled("b"), stop, *spelled("\n"), 0]


@pytest.mark.parametrize("completion", [" 4", " 4<|end|>"])
@pytest.mark.parametrize("make", [byte_tokenizer, closing_tokenizer])
def test_plain_rows_end_in_one_eos(make, completion: str) -> None:
    row = encode("2+2=", completion, make())
    assert (row.input_ids[-1], row.input_ids.count(0), row.loss_mask[-1]) == (0, 1, True)


def test_eos_inside_the_text_is_spelled_out_and_counted() -> None:
    some = encoder()
    (row,) = some.demonstrations([Demonstration("<|end|>", "a<|end|>b", "f:1")])
    assert list(row.input_ids) == [*spelled("<|end|>a<|end|>b"), 0]
    assert some.tally.counts["special tokens in the text, read as plain characters"] == 1
    (prompt,) = some.prompts([Prompt("<|end|>", "f:1")], max_prompt_length=9)
    assert list(prompt.input_ids) == spelled("<|end|>")
    assert some.tally.counts["special tokens in the text, read as plain characters"] == 2


def test_an_empty_completion_teaches_to_stop_at_once() -> None:
    assert shown("2+2=", "") == "2+2=⟦<|end|>⟧"
    assert shown(DIALOG[:1], (Message("assistant", ""),)) == "<|user|>\na\n<|assistant|>\n⟦<|end|>⟧"


def test_a_row_of_nothing_is_dropped() -> None:
    """Its EOS would be the first token, which nothing predicts."""
    some = encoder()
    assert some.demonstrations([Demonstration("", "", "f:1")]) == []
    assert some.tally.counts["dropped: nothing in it to train on"] == 1


def test_text_rows_train_all_but_the_first_token() -> None:
    assert shown("", "abc") == shown("", "abc", loss_on="all") == "a⟦bc<|end|>⟧"
    assert shown("ab", "c", loss_on="all") == "a⟦bc<|end|>⟧"


def test_a_bos_that_also_stops_does_not_end_the_row() -> None:
    """Models that separate documents by BOS list it among their stop ids."""
    row = encode("a", " b", sentencepiece_tokenizer(), loss_on="all", stop_ids=(1, 2))
    assert list(row.input_ids) == [1, 259, 260, 259, 261, 2]
    assert list(row.loss_mask) == [False, True, True, True, True, True]


def test_trailing_and_leading_spaces_keep_their_loss() -> None:
    tokenizer = trimming_tokenizer()
    row = encode("2+2= ", "  4  ", tokenizer)
    assert tokenizer.decode(row.input_ids[row.num_prompt :]) == "  4  <|end|>"
    assert list(row.loss_mask) == [t >= row.num_prompt for t in range(len(row.input_ids))]
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:  {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:  {% endif %}"
    )
    expected = "user:  a<|end|>assistant:  ⟦b<|end|>⟧user:  c<|end|>assistant:  ⟦d<|end|>⟧"
    assert shown((), DIALOG, tokenizer) == expected


def test_bos_stands_first_and_once() -> None:
    tokenizer = sentencepiece_tokenizer()
    for row in (
        encode("a", "b", tokenizer),
        encode("", "b", tokenizer),
        encode("</s>", "b", tokenizer),
        encode("<s>a", "<s>b", tokenizer),
        encode(DIALOG[:1], DIALOG[1:2], tokenizer),
        encode((), DIALOG, tokenizer),
    ):
        assert [t for t, i in enumerate(row.input_ids) if i == 1] == [0]
        assert not row.loss_mask[0]


def test_sentencepiece_borders() -> None:
    tokenizer = sentencepiece_tokenizer()
    time, four, ti, me, space = (tokenizer.convert_tokens_to_ids(t) for t in ["▁time", "▁4", "ti", "me", "▁"])
    assert list(encode("a", " 4", tokenizer).input_ids) == [1, space, space + 1, four, 2]
    # One token across the border becomes two; the completion gets no space of its own.
    assert tokenizer("time")["input_ids"] == [1, time]
    assert list(encode("ti", "me", tokenizer).input_ids) == [1, space, ti, me, 2]
    assert list(encode("a ", "4", tokenizer).input_ids[3:]) == [
        space,
        tokenizer.convert_tokens_to_ids("4"),
        2,
    ]
    # Nor does what follows a special token spelled out.
    row = encode("a", "</s>me", tokenizer)
    assert tokenizer.decode(row.input_ids[1:-1]) == "a</s>me"


@pytest.mark.skipif(not (SHARED / "models").exists(), reason="the small models are not here")
def test_borders_of_a_real_sentencepiece_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "models/stories260K-hf")
    row = encode("Once upon a ti", "me", tokenizer, stop_ids=(1, 2))
    assert tokenizer.convert_ids_to_tokens(list(row.input_ids)) == [
        "<s>", "▁Once", "▁upon", "▁a", "▁t", "i", "m", "e", "</s>",
    ]  # fmt: skip
    assert list(row.loss_mask) == [False] * 6 + [True] * 3
    whole = encode("", "Once upon a time", tokenizer, stop_ids=(1, 2), loss_on="all")
    assert list(whole.input_ids) == [1, 403, 407, 261, 378, 2]
    assert list(whole.loss_mask) == [False] + [True] * 5


def test_a_merge_across_the_border_is_undone() -> None:
    tokenizer = train_tokenizer(["abc abc abc"] * 4, 262)
    assert len(tokenizer("abc")["input_ids"]) == 1
    row = encode("ab", "c", tokenizer)
    assert list(row.input_ids[: row.num_prompt]) == tokenizer("ab")["input_ids"]
    assert list(row.input_ids[row.num_prompt :]) == [*tokenizer("c")["input_ids"], 0]
