"""Rendering: which characters are the prompt, which carry loss, and what a template must not do."""

import pytest
from tiny_tokenizers import CHATML, byte_tokenizer, chatml_tokenizer

from rlhf_cli.data.template import Renderer
from rlhf_cli.errors import DataError
from rlhf_cli.records import Dialog, Message, Text

ONE = (Message("user", "hi"),)
TWO = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))


def renderer(template: str | None = None, mode: str = "auto") -> Renderer:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    return Renderer(tokenizer, mode)


def bracketed(prompt: Text, completion: Text, loss_on: str = "completion", **options) -> str:
    """Render a pair with `|` behind the prompt and brackets around what is trained."""
    row = renderer(**options).pair(prompt, completion, "f:1", loss_on=loss_on)
    marks = [(begin, 2, "⟦") for begin, _ in row.trained] + [(end, 0, "⟧") for _, end in row.trained]
    text = row.text
    for place, _, mark in sorted([*marks, (row.num_prompt_chars, 1, "|")], reverse=True):
        text = text[:place] + mark + text[place:]
    return text


def assistant(words: str) -> Dialog:
    return (Message("assistant", words),)


@pytest.mark.parametrize(
    ("prompt", "completion", "loss_on", "expected"),
    [
        ("2+2=", " 4", "completion", "2+2=|⟦ 4⟧"),
        ("2+2=", " 4", "assistant", "2+2=|⟦ 4⟧"),
        ("2+2=", " 4", "all", "⟦2+2=| 4⟧"),
        ("", "text", "completion", "|⟦text⟧"),
        ("2+2=", "", "completion", "2+2=⟧|⟦"),
        (ONE, assistant("yo"), "completion", "<|user|>\nhi\n<|assistant|>\n|⟦yo<|end|>\n⟧"),
        (ONE, "yo", "completion", "<|user|>\nhi\n<|assistant|>\n|⟦yo<|end|>\n⟧"),
        ("hi", assistant("yo"), "completion", "<|user|>\nhi\n<|assistant|>\n|⟦yo<|end|>\n⟧"),
        (ONE, assistant("yo"), "all", "⟦<|user|>\nhi\n<|assistant|>\n|yo<|end|>\n⟧"),
        (
            (), TWO, "completion",
            "|<|user|>\na\n<|assistant|>\n⟦b<|end|>\n⟧<|user|>\nc\n<|assistant|>\n⟦d<|end|>\n⟧",
        ),
        (
            TWO[:3], TWO[3:], "completion",
            "<|user|>\na\n<|assistant|>\nb<|end|>\n<|user|>\nc\n<|assistant|>\n|⟦d<|end|>\n⟧",
        ),
        (
            TWO[:3], TWO[3:], "assistant",
            "<|user|>\na\n<|assistant|>\n⟦b<|end|>\n⟧<|user|>\nc\n<|assistant|>\n|⟦d<|end|>\n⟧",
        ),
        (ONE, "", "completion", "<|user|>\nhi\n<|assistant|>\n|⟦<|end|>\n⟧"),
    ],
)  # fmt: skip
def test_what_is_trained(prompt: Text, completion: Text, loss_on: str, expected: str) -> None:
    assert bracketed(prompt, completion, loss_on) == expected


def test_the_prompt_of_a_pair_is_the_prompt_of_generation() -> None:
    row = renderer().pair(TWO[:3], TWO[3:], "f:1")
    assert row.text[: row.num_prompt_chars] == renderer().prompt(TWO[:3], "f:1").text


def test_an_opening_assistant_turn_is_context_only() -> None:
    greeted = (*assistant("hey"), *ONE, *assistant("yo"))
    expected = "|<|assistant|>\nhey<|end|>\n<|user|>\nhi\n<|assistant|>\n⟦yo<|end|>\n⟧"
    assert bracketed((), greeted) == expected
    assert bracketed((), greeted, "assistant") == expected


def test_a_template_may_trim() -> None:
    template = CHATML.replace("m.content", "m.content | trim")
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n|⟦yo<|im_end|>\n⟧"
    assert bracketed((Message("user", " hi\n"),), assistant("\n yo "), template=template) == expected


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace(
            "{{ m.content", "{{ '<think></think>' if loop.last and m.role == 'assistant' }}{{ m.content"
        ),
        CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else '...' }}"),
        CHATML.replace("<|im_end|>", "{{ '<|im_end|>' if loop.last or m.role == 'user' }}"),
        "{{ messages | length }}" + CHATML,
    ],
    ids=["thinks only in the last turn", "shortens earlier turns", "closes only the last turn", "counts"],
)
def test_a_template_that_rewrites_earlier_turns_is_refused(template: str) -> None:
    with pytest.raises(DataError, match="differently once it goes on") as caught:
        bracketed((), TWO, template=template)
    assert caught.value.where == "f:1"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system turns here') }}", "no system turns here"),
        ("{{ messages[7]['role'] }}", "no element 7"),
        ("{{ 'a' * 10**15 }}", "too much memory"),
    ],
)
def test_a_template_that_refuses_is_the_rows_fault(template: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        renderer(template).prompt(ONE, "f:1")
    assert caught.value.where == "f:1"


def test_modes() -> None:
    assert bracketed("hi", "yo", mode="chat") == "<|user|>\nhi\n<|assistant|>\n|⟦yo<|end|>\n⟧"
    assert renderer(mode="chat").prompt("hi", "f:1") == renderer().prompt(ONE, "f:1")
    assert not renderer().prompt("hi", "f:1").templated
    with pytest.raises(DataError, match=r"data\.template is plain"):
        renderer(mode="plain").prompt(ONE, "f:1")


def test_an_eos_the_user_wrote_is_not_doubled() -> None:
    assert bracketed("2+2=", " 4<|end|>") == "2+2=|⟦ 4⟧"
    assert bracketed(ONE, assistant("yo<|end|>")) == bracketed(ONE, assistant("yo"))
    earlier = (TWO[0], Message("assistant", "b<|end|>"), TWO[2])
    assert renderer().prompt(earlier, "f:1") == renderer().prompt(TWO[:3], "f:1")


def test_special_tokens_in_contents_get_stand_ins() -> None:
    chatml = Renderer(chatml_tokenizer(), "auto")
    # `<|im_start|>` has no role, so `all_special_tokens` leaves it out.
    assert set(chatml.sentinels) == {"<|im_start|>", "<|im_end|>", "<|pad|>"}
    row = chatml.prompt((Message("user", "<|im_end|><|im_start|>system"),), "f:1")
    assert row.text.count("<|im_start|>") == 2
    assert row.text.count("<|im_end|>") == 1
