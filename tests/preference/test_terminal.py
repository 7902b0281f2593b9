"""What a person sees and presses: verdicts, layout, hostile text."""

import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rlhf_cli.errors import UsageError
from rlhf_cli.preference.inert import inert
from rlhf_cli.preference.keys import ScriptedKeys
from rlhf_cli.preference.labeler import Question, Stop, Undo, Verdict
from rlhf_cli.preference.terminal import TerminalLabeler, help_view, open_terminal
from rlhf_cli.records import Message, Text

CODE = "def f(x):\n    if x:\n        return 1"
HOSTILE = [
    "\x1b[2J\x1b[1;1Hcleared",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07 clipboard",
    "\x9b31mC1 introducer\x9c",
    "safe\rDANGER",
    "back\x08\x08\x08\x08 space, bell\x07, delete\x7f, nul\x00",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200fmark \u061c",
    "zero\u200bwidth \ufeffbom \u00adsoft \u2060joiner \U000e0041tag",
    "line\u2028separator paragraph\u2029",
    "[bold red]markup[/bold red] [link=http://evil.example]x[/link] [/] [",
    ":smile: :boom:",
    "lone \ud800 surrogate, private \ue000",
]


def screen(width: int = 120) -> Console:
    return Console(
        file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False, emoji=False
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ask(*typed: str, number: int = 1, width: int = 120, **texts: Text) -> tuple[object, str]:
    parts = {"prompt": "Why?", "first": "Because.", "second": "No idea.", **texts}
    question = Question(pair_id=1, number=number, total=9, **parts)  # type: ignore[arg-type]
    console = screen(width)
    labeler = TerminalLabeler(console, ScriptedKeys(*typed), name="ana", tags=["correct", "clear", "safe"])
    return labeler.label(question), shown(console)


@pytest.mark.parametrize(
    ("key", "winner"),
    [("a", "first"), ("b", "second"), ("t", "tie"), ("x", "both_bad"), ("s", "skip"), ("A", "first")],
)
def test_one_key_is_one_verdict(key: str, winner: str):
    verdict, _ = ask(key)
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.reason) == (winner, "")
    assert 0 <= verdict.seconds < 5


def test_a_reason_goes_with_the_verdict_that_follows():
    verdict, text = ask("r", "too long", "r", "too long, and wrong", "b")
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.reason) == ("second", "too long, and wrong")
    assert "now vote" in text


def test_quitting_and_the_end_of_input_stop():
    for typed in (["q"], [], ["r"], ["z", "q"]):
        assert ask(*typed)[0] == Stop()


def test_undo_needs_a_vote():
    assert ask("u", number=2)[0] == Undo()
    verdict, text = ask("u", "t", number=1)
    assert isinstance(verdict, Verdict)
    assert "no vote to undo" in text


def test_unknown_keys_show_the_keys_and_vote_nothing():
    verdict, text = ask("?", "4", "\n", "ж", "x")
    assert isinstance(verdict, Verdict)
    assert verdict.winner == "both_bad"
    assert text.count("both are bad") == 5  # four lists of keys, and the verdict
    console = screen()
    console.print(help_view())
    assert {line.split()[0] for line in shown(console).splitlines()} == set("abtxs123gru?q")


@pytest.mark.parametrize(
    ("typed", "winner", "strength"),
    [("2a", "first", 2), ("13b", "second", 3), ("22a", "first", 0), ("3t", "tie", 0), ("1x", "both_bad", 0)],
)
def test_how_much_better_is_said_before_the_vote(typed: str, winner: str, strength: int):
    verdict, text = ask(*typed)
    assert isinstance(verdict, Verdict)
    assert (verdict.winner, verdict.strength) == (winner, strength)
    assert ("A is clearly better" in text) is (typed == "2a")


def test_tags_are_chosen_by_number_and_go_with_a_reason():
    verdict, text = ask("g", "3, 1 9", "r", "long", "b")
    assert isinstance(verdict, Verdict)
    assert (verdict.tags, verdict.reason) == (("correct", "safe"), "long")
    assert "1 correct  2 clear  3 safe" in text
    taken_back, _ = ask("g", "2", "g", "", "b")
    assert isinstance(taken_back, Verdict)
    assert (taken_back.winner, taken_back.tags, taken_back.reason) == ("second", (), "")
    assert ask("g")[0] == Stop()


def test_code_keeps_its_text_and_is_set_apart():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    answer = "Use `len`:\n```python\nx = [1]\n```\nDone."
    TerminalLabeler(console, ScriptedKeys(), name="ana").label(Question(1, "p", answer, "b", 1, 1))
    text = shown(console)
    assert re.search(r"\x1b\[36mx = \[1\]", text)
    assert re.search(r"\x1b\[36m`len`", text)
    assert not re.search(r"\x1b\[36m[^`]*Done", text)


def test_answers_stand_side_by_side_when_there_is_room():
    wide = ask(first=CODE, second="No idea.")[1].splitlines()
    assert any("def f(x):" in line and "No idea." in line for line in wide)
    narrow = ask(first=CODE, second="No idea.", width=60)[1].splitlines()
    assert not any("def f(x):" in line and "No idea." in line for line in narrow)
    for lines in (wide, narrow):
        column = next(line.index("def f") for line in lines if "def f" in line)
        assert next(line.index("if x:") for line in lines if "if x:" in line) == column + 4
        assert next(line.index("return") for line in lines if "return" in line) == column + 8


@pytest.mark.parametrize("width", [20, 60, 120])
def test_nothing_is_lost_or_runs_over_the_edge(width: int):
    long_word, sentence = "z" * 500, "word " * 100
    text = ask(prompt=sentence, first=long_word, second=sentence, width=width)[1]
    assert max(len(line) for line in text.splitlines() if "better" not in line) <= width
    assert text.count("z") == 500
    assert len(re.findall(r"word", text)) >= 190


def test_conversations_show_who_spoke():
    dialog = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yo"),
        Message("user", "Go on"),
    )
    lines = [line.strip() for line in ask("q", prompt=dialog)[1].splitlines()]
    order = [lines.index(word) for word in ("system", "Be brief.", "user", "Hi", "assistant", "Yo", "Go on")]
    assert order == sorted(order)


def test_an_empty_answer_says_so():
    assert "(empty answer)" in ask(first=" \n")[1]


@pytest.mark.parametrize("width", [60, 120])
def test_an_answer_the_limit_cut_says_so(width: int):
    console = screen(width)
    question = Question(1, "Why?", "Because", "Since", 1, 1, cut=(False, True))
    TerminalLabeler(console, ScriptedKeys("a"), name="ana").label(question)
    assert shown(console).count("cut off") == 1
    assert "B (cut off" in shown(console)


def test_the_question_is_blind_and_counted():
    text = ask(number=4)[1]
    assert "4 of 9" in text
    assert "model" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("width", [60, 120])
def test_hostile_text_is_inert_and_visible(hostile: str, width: int):
    dialog = (Message("user", hostile),)
    for texts in ({"prompt": hostile}, {"prompt": dialog}, {"first": hostile}, {"second": hostile}):
        _, text = ask(width=width, **texts)
        dangerous = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}} - {
            "\n"
        }
        assert not dangerous


def test_control_characters_have_symbols():
    assert inert("a\x1b[0m\x00\x7f\x9b\u202e\r\nb\tc\r") == "a␛[0m␀␡⟨009B⟩⟨202E⟩\nb    c␍"
    kept = "Grüße, 你好 👩\u200d👩\u200d👧 می\u200cخواهم [b] *md* `x`\n  indented"
    assert inert(kept) == kept


@given(st.text())
def test_inert_text_is_inert_for_good(text: str):
    once = inert(text)
    assert inert(once) == once
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in once)


def test_no_terminal_is_refused_with_a_way_out():
    with pytest.raises(UsageError, match="no terminal") as caught:
        open_terminal("ana", tags=[], stopped=lambda: False)
    assert "rlhf_cli.preference.rules:longer" in (caught.value.fix or "")
