"""The page where people write answers, without a script."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import HOSTILE
from starlette.testclient import TestClient
from visitors import BASE, OWNER, send, text_of

from rlhf_cli.preference.store import Store
from rlhf_cli.preference.web.access import Access, Member
from rlhf_cli.preference.web.app import make_app
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.write_work import MAX_TEXT_CHARACTERS, WriteWork
from rlhf_cli.preference.writing import WritingDesk
from rlhf_cli.records import Message, Prompt


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[WritingDesk]:
    with Store(tmp_path / "collect.db") as store:
        prompts = [(Message("user", f"Question {i}"),) for i in (1, 2, 3)]
        store.add_prompts([Prompt(prompt, f"p:{i}") for i, prompt in enumerate(prompts)])
        with WritingDesk(store) as desk:
            yield desk


@pytest.fixture
def owner(desk: WritingDesk, tmp_path: Path) -> Iterator[TestClient]:
    with Access(tmp_path / "access.db") as access:
        client = TestClient(make_app(WriteWork(desk), access, WebSettings(owner=OWNER)), base_url=BASE)
        client.get(f"/join/{access.invite(Member(OWNER, owner=True))}")
        yield client


def test_an_answer_is_kept_as_typed_and_the_next_prompt_follows(owner: TestClient, desk: WritingDesk):
    assert "Question 1" in owner.get("/").text
    send(owner, "/answer", text="  indented\r\n\r\nsecond \r\n", action="save", milliseconds="1500")
    (writing,) = desk.writings()
    assert (writing.text, writing.seconds) == ("  indented\n\nsecond", 1.5)
    assert "Question 2" in owner.get("/").text
    assert "Written" in text_of(owner.get("/history").text)
    assert "Written" in text_of(owner.get("/owner").text)


def test_skip_undo_and_the_text_comes_back(owner: TestClient, desk: WritingDesk):
    send(owner, "/answer", text="my words", action="save")
    send(owner, "/answer", action="skip")
    assert [w.outcome for w in desk.writings()] == ["written", "skip"]
    send(owner, "/undo")
    send(owner, "/undo")
    assert desk.writings() == []
    assert ">\nmy words</textarea>" in owner.get("/").text


@pytest.mark.parametrize("text", [" \n ", "x" * (MAX_TEXT_CHARACTERS + 1)])
def test_nothing_and_too_much_are_refused_in_words(text: str, owner: TestClient, desk: WritingDesk):
    reply = send(owner, "/answer", text=text, action="save", headers={"accept": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"].endswith(".")
    assert desk.writings() == []


def test_the_longest_text_of_the_widest_characters_fits(owner: TestClient, desk: WritingDesk):
    send(owner, "/answer", text="\U0001f600" * MAX_TEXT_CHARACTERS, action="save")
    assert len(desk.writings()[0].text) == MAX_TEXT_CHARACTERS


def test_hostile_text_stays_in_its_field(owner: TestClient, desk: WritingDesk):
    whole = "\n".join(text for text in HOSTILE if "\ud800" not in text and len(text) < 1000)
    send(owner, "/answer", text=whole, action="save")
    send(owner, "/undo")
    page = owner.get("/").text
    assert page.count("</textarea>") == 1
    assert "<script>window" not in page
    assert "<script>window" not in owner.get("/history").text
