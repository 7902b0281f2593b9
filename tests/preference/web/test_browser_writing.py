"""A real browser at the page where people write: keys, drafts through a reload, undo, a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import see
from page_server import Server
from scripted_desk import ScriptedDesk

from rlhf_cli.preference.store import Store
from rlhf_cli.preference.web.write_work import WriteWork
from rlhf_cli.preference.writing import Writing, WritingDesk
from rlhf_cli.records import Message, Prompt


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[WritingDesk]:
    with Store(tmp_path / "collect.db") as store:
        store.add_prompts([Prompt((Message("user", f"Question {i}"),), f"p:{i}") for i in (1, 2, 3)])
        with WritingDesk(store) as desk:
            yield desk


@pytest.fixture
def writing_server(desk: WritingDesk, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, ScriptedDesk([]), WriteWork(desk))
    server.up()
    yield server
    server.down()


def test_write_by_key_reload_and_undo(writing_server: Server, desk: WritingDesk, visit):
    robin = visit(writing_server.links[0])
    robin.page.keyboard.type("skip is a word here")  # the field has the focus; s is no key in it
    robin.page.reload()
    see(robin.page, "Question 1")
    assert robin.page.locator("textarea").input_value() == "skip is a word here"
    robin.press("Control+Enter", then="Question 2")
    assert [w.text for w in desk.writings()] == ["skip is a word here"]
    assert robin.page.locator("textarea").input_value() == ""
    robin.click("Undo", then="Question 1")
    assert robin.page.locator("textarea").input_value() == "skip is a word here"
    robin.click("Skip", then="Question 2")
    assert [w.outcome for w in desk.writings()] == ["skip"]


def test_a_phone_shows_the_field_and_its_buttons(writing_server: Server, visit):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    robin = visit(writing_server.links[0], **phone)
    field = robin.page.locator("textarea").bounding_box()
    save = robin.page.get_by_role("button", name="Save").bounding_box()
    assert field["width"] > 340
    assert field["y"] + field["height"] <= save["y"] < 844 - save["height"]
    assert robin.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_text_that_is_refused_is_not_thrown_away(writing_server: Server, desk: WritingDesk, visit):
    robin = visit(writing_server.links[0])
    robin.page.keyboard.type("mine")
    desk.write(Writing(1, "robin", "written", "from another window"), key="k")
    robin.page.keyboard.press("Control+Enter")
    robin.page.get_by_text("prompt 1 is answered already by robin").wait_for()
    see(robin.page, "Question 2")
    desk.undo("robin", key="u")
    robin.page.reload()
    see(robin.page, "Question 1")
    assert robin.page.locator("textarea").input_value() == "mine"
    robin.complaints.clear()  # the browser itself reports the refusal
