"""One literal row per single-text format: the exact demonstration and the exact prompt it becomes."""

import pytest

from rlhf_cli.data.detect import FOR_DEMONSTRATIONS, FOR_PROMPTS, detect_format, rename
from rlhf_cli.data.fields import BadRow, SetAside
from rlhf_cli.data.formats import demonstration, prompt_of
from rlhf_cli.records import Demonstration, Message


def user(words: str) -> Message:
    return Message("user", words)


def assistant(words: str) -> Message:
    return Message("assistant", words)


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

ROWS = {
    "text": ({"text": " as it stands\n"}, "", " as it stands\n"),
    "prompt_completion": ({"prompt": "2+2=", "completion": " 4", "metadata": {"a": 1}}, "2+2=", " 4"),
    "instruction": (
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        (user("Translate.\n\nchat"),),
        (assistant("cat"),),
    ),
    "messages": ({"messages": CHAT}, (), (user("hi"), assistant("hello"))),
    "sharegpt": (
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "hello"},
            ]
        },
        (),
        (Message("system", "Be kind."), user("hi"), assistant("hello")),
    ),
    "question_answer": ({"question": "1+1?", "answer": "2"}, (user("1+1?"),), (assistant("2"),)),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_format_gives_its_demonstration_and_is_recognised(name: str):
    row, prompt, completion = ROWS[name]
    assert demonstration(row, name, "f.jsonl:1") == Demonstration(prompt, completion, "f.jsonl:1")
    assert detect_format("f.jsonl", [row], FOR_DEMONSTRATIONS).name == name


def test_prompt_and_completion_may_be_messages_on_either_side():
    rows = [
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"prompt": "hi", "completion": CHAT[1:]},
        {"prompt": CHAT[:1], "completion": "hello"},
    ]
    expected = Demonstration((user("hi"),), (assistant("hello"),), "f")
    assert [demonstration(row, "prompt_completion", "f") for row in rows] == [expected] * 3


@pytest.mark.parametrize("context", [None, "", "  \n"])
def test_an_instruction_without_input_stands_alone(context: str | None):
    row = {"instruction": "Sing.", "input": context, "output": "la"}
    assert demonstration(row, "instruction", "f").prompt == (user("Sing."),)


def test_content_in_text_parts_is_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [{"role": "user", "content": parts}, CHAT[1]]}
    assert demonstration(row, "messages", "f").completion == (user("ab"), assistant("hello"))


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("text", {}, "field 'text' is missing"),
        ("text", {"text": None}, "field 'text' is null"),
        ("text", {"text": 5}, "field 'text' is a number, expected text"),
        ("text", {"text": True}, "field 'text' is true/false, expected text"),
        ("prompt_completion", {"prompt": {}, "completion": "a"},
         "field 'prompt' is an object, expected text or messages"),
        ("question_answer", {"question": "a", "answer": ["b"]}, "field 'answer' is a list, expected text"),
        ("messages", {"messages": []}, "field 'messages' is empty, expected text or messages"),
        ("messages", {"messages": ["hi"]}, "messages[0] is text, expected an object with 'role' and 'content'"),
        ("messages", {"messages": CHAT[:1]}, "the last turn of messages is spoken by user, expected assistant"),
        ("messages", {"messages": CHAT[1:]}, "messages[0] is spoken by assistant, expected user"),
        ("messages", {"messages": [*CHAT, CHAT[1]]}, "messages[2] is spoken by assistant, expected user"),
        ("messages", {"messages": [CHAT[0], CHAT[0]]}, "messages[1] is spoken by user, expected assistant"),
        ("messages", {"messages": [{"role": "tool", "content": "x"}]},
         "messages[0].role is 'tool', expected one of system, user, assistant"),
        ("messages", {"messages": [CHAT[0], {"role": "assistant", "content": None}]},
         "messages[1].content is missing, expected text"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
         "messages[0].content holds parts that are not text"),
        ("messages", {"messages": [{"role": "system", "content": "s"}]},
         "the last turn of messages is spoken by system, expected assistant"),
        ("sharegpt", {"conversations": [{"from": "bing", "value": "x"}]},
         "conversations[0].from is 'bing', expected one of system, user, assistant, human, gpt, chatgpt"),
    ],
)  # fmt: skip
def test_a_row_that_breaks_its_format_says_where(name: str, row: dict[str, object], reason: str):
    with pytest.raises(BadRow) as caught:
        demonstration(row, name, "f")
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("text", {"text": " \n"}),
        ("prompt_completion", {"prompt": "a", "completion": ""}),
        ("messages", {"messages": [CHAT[0], {"role": "assistant", "content": " "}]}),
    ],
)
def test_an_empty_completion_is_set_aside(name: str, row: dict[str, object]):
    with pytest.raises(SetAside, match="empty completion"):
        demonstration(row, name, "f")


@pytest.mark.parametrize(
    ("name", "row", "prompt"),
    [
        ("prompts", {"prompt": "Once upon"}, "Once upon"),
        ("prompts", {"prompt": CHAT[:1]}, (user("hi"),)),
        ("prompts", {"question": "1+1?"}, (user("1+1?"),)),
        ("prompts", {"prompt": "x", "completion": "y"}, "x"),
        ("messages", {"messages": CHAT}, (user("hi"),)),
        ("messages", {"messages": CHAT[:1]}, (user("hi"),)),
        ("sharegpt", ROWS["sharegpt"][0], (Message("system", "Be kind."), user("hi"))),
        ("instruction", ROWS["instruction"][0], (user("Translate.\n\nchat"),)),
    ],
)
def test_the_prompt_of_a_row(name: str, row: dict[str, object], prompt: object):
    assert prompt_of(row, name) == prompt
    assert detect_format("f.jsonl", [row], FOR_PROMPTS).name == name


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": CHAT}, "the last turn of prompt is spoken by assistant, expected user"),
        ({"prompt": []}, "field 'prompt' is empty, expected text or messages"),
        ({}, "field 'prompt' is missing"),
    ],
)
def test_a_prompt_must_await_an_answer(row: dict[str, object], reason: str):
    with pytest.raises(BadRow, match=reason):
        prompt_of(row, "prompts")


def test_a_conversation_of_one_assistant_turn_holds_no_prompt():
    with pytest.raises(BadRow, match="messages holds no user turn"):
        prompt_of({"messages": CHAT[1:]}, "messages")


def test_columns_are_renamed_to_ours_and_a_namesake_goes():
    row = {"question": "q", "prompt": "their own", "answer": "a"}
    assert rename(row, {"prompt": "question"}) == {"prompt": "q", "answer": "a"}
    assert rename({"chosen": 1, "rejected": 2}, {"chosen": "rejected", "rejected": "chosen"}) == {
        "chosen": 2,
        "rejected": 1,
    }
    assert rename({"prompt": "their own"}, {"prompt": "question"}) == {}
