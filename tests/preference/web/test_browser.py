"""A real browser at the page: by key and by click, alone and in company, without scripts, offline and under attack."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostile import HOSTILE
from page_server import QUESTIONS, Server, wait_until
from scripted_desk import ScriptedDesk

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("RLHF_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium; name one in the environment variable RLHF_BROWSER")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    opened = []

    def make(questions: list | None = None) -> Server:
        server = Server(tmp_path, ScriptedDesk(questions or QUESTIONS))
        server.up()
        opened.append(server)
        return server

    yield make
    for server in opened:
        server.down()


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server()


def see(page: "Page", text: str) -> None:
    """Wait until `text` is shown; the plain form beside the formatted one makes it be there twice."""
    page.get_by_text(text, exact=True).first.wait_for()


class Visit:
    """One person's browser window, with what it complained about and whom it called."""

    def __init__(self, browser: "Browser", link: str, **options: object) -> None:
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.called: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.called.append(request.url))
        self.page.goto(link)
        if self.page.get_by_role("button", name="Start").count():
            self.page.get_by_role("button", name="Start").click()

    def press(self, key: str, *, then: str) -> None:
        """Press a key, and wait until the page shows `then`."""
        self.page.wait_for_timeout(300)  # the same key again at once is taken for one held down
        self.page.keyboard.press(key)
        see(self.page, then)

    def click(self, name: str, *, then: str) -> None:
        self.page.get_by_role("button", name=re.compile(f"^{name}")).click()
        see(self.page, then)


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def come(link: str, **options: object) -> Visit:
        opened.append(Visit(browser, link, **options))
        return opened[-1]

    yield come
    for one in opened:
        one.context.close()
        assert not one.complaints
        assert {re.match(r"\w+://([^/:]+)", url).group(1) for url in one.called} == {"127.0.0.1"}


def test_votes_by_key_in_every_way_there_is(server: Server, visit):
    robin = visit(server.links[0])
    for number, key in enumerate("abtxs", 2):
        robin.press(key, then=f"Question {number}")
    assert server.said_by("robin") == dict(enumerate(["first", "second", "tie", "both_bad", "skip"], 1))


def test_votes_by_click(server: Server, visit):
    robin = visit(server.links[0])
    for number, name in enumerate(["A is better", "B is better", "Tie", "Both bad", "Skip"], 2):
        robin.click(name, then=f"Question {number}")
    assert server.said_by("robin") == dict(enumerate(["first", "second", "tie", "both_bad", "skip"], 1))


def test_strength_reason_and_tags_go_with_the_vote(server: Server, visit):
    robin = visit(server.links[0])
    robin.page.keyboard.press("1")
    robin.page.keyboard.press("3")
    robin.page.keyboard.press("r")
    robin.page.keyboard.type("ab, s and u are letters here")
    robin.page.keyboard.press("Escape")
    robin.page.get_by_text("clear", exact=True).click()
    robin.press("b", then="Question 2")
    (verdict,) = server.desk.votes.values()
    assert (verdict.winner, verdict.strength, verdict.tags) == ("second", 3, ("clear",))
    assert verdict.reason == "ab, s and u are letters here"
    assert 0 < verdict.seconds < 60


def test_a_key_held_down_votes_once(server: Server, visit):
    robin = visit(server.links[0])
    robin.page.keyboard.down("a")
    for _ in range(20):
        robin.page.keyboard.down("a")  # repeats, as the system sends them
    see(robin.page, "Question 2")
    robin.page.wait_for_timeout(300)
    assert server.said_by("robin") == {1: "first"}


def test_undo_goes_back_as_far_as_one_likes(server: Server, visit):
    robin = visit(server.links[0])
    robin.press("a", then="Question 2")
    robin.press("b", then="Question 3")
    robin.press("u", then="Question 2")
    robin.click("Undo", then="Question 1")
    assert server.desk.votes == {}
    robin.press("t", then="Question 2")
    assert server.said_by("robin") == {1: "tie"}


def test_a_reload_keeps_the_question_and_what_was_typed(server: Server, visit):
    robin = visit(server.links[0])
    robin.press("a", then="Question 2")
    robin.page.get_by_placeholder("Reason").fill("half a thou")
    robin.page.reload()
    see(robin.page, "Question 2")
    assert robin.page.get_by_placeholder("Reason").input_value() == "half a thou"
    robin.press("b", then="Question 3")
    assert robin.page.get_by_placeholder("Reason").input_value() == ""
    assert [verdict.reason for verdict in server.desk.votes.values()] == ["", "half a thou"]


def test_two_people_at_once_keep_their_own_places(server: Server, visit):
    robin, ana = visit(server.links[0]), visit(server.links[1])
    robin.press("a", then="Question 2")
    ana.press("b", then="Question 2")
    ana.press("b", then="Question 3")
    robin.press("t", then="Question 3")
    assert server.said_by("robin") == {1: "first", 2: "tie"}
    assert server.said_by("ana") == {1: "second", 2: "second"}
    robin.page.goto(f"http://127.0.0.1:{server.port}/owner")
    assert robin.page.get_by_text("ana and robin agree on 0 of 2 pairs (0%).").is_visible()


def test_without_scripts_everything_works(server: Server, visit):
    robin = visit(server.links[0], java_script_enabled=False)
    robin.page.get_by_text("clearly").click()
    robin.click("B is better", then="Question 2")
    robin.click("Skip", then="Question 3")
    robin.click("Undo", then="Question 2")
    robin.click("Plain", then="first 2")
    assert robin.page.locator(".answer .raw").first.is_visible()
    robin.page.get_by_role("link", name="History").click()
    assert robin.page.get_by_text("B is better, clearly").is_visible()
    assert server.said_by("robin") == {1: "second"}


def test_an_unsaved_vote_waits_for_the_server_through_a_reload(server: Server, visit):
    robin = visit(server.links[0])
    server.down()
    robin.page.keyboard.press("a")
    robin.page.get_by_text("Your answer is kept in this browser").wait_for()
    robin.page.keyboard.press("b")  # not taken while the first one waits
    assert server.desk.votes == {}
    server.up()
    robin.page.reload()
    see(robin.page, "Question 2")
    assert server.said_by("robin") == {1: "first"}
    robin.complaints.clear()  # the browser itself reports connections that failed


def test_a_vote_whose_receipt_was_lost_is_stored_once(server: Server, visit):
    robin = visit(server.links[0])
    lost = []

    def lose(route) -> None:
        if not lost:
            lost.append(route.fetch())  # it arrives, and the reply does not
            route.abort()
        else:
            route.continue_()

    robin.page.route("**/answer", lose)
    robin.press("a", then="Question 2")
    assert lost
    assert server.said_by("robin") == {1: "first"}
    robin.complaints.clear()


def test_a_question_answered_in_another_window_is_said_so(server: Server, visit):
    robin = visit(server.links[0])
    other = robin.context.new_page()
    other.goto(robin.page.url)
    robin.press("a", then="Question 2")
    other.keyboard.press("b")
    other.get_by_text("this question is answered already").wait_for()
    see(other, "Question 2")
    assert server.said_by("robin") == {1: "first"}


def test_theme_and_plain_text_by_key_and_click_survive_a_reload(server: Server, visit):
    robin = visit(server.links[0], color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = robin.page.evaluate(ground)
    robin.page.get_by_role("button", name="Change the colours").click()
    dark = robin.page.evaluate(ground)
    with robin.page.expect_response("**/display"):
        robin.page.keyboard.press("m")
    assert robin.page.locator(".answer .raw").first.is_visible()
    robin.page.reload()
    assert dark != light
    assert robin.page.evaluate(ground) == dark
    assert robin.page.locator(".answer .raw").first.is_visible()


def test_a_phone_shows_the_answers_one_below_the_other(server: Server, visit):
    robin = visit(server.links[0], viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    one, two = (robin.page.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    assert one["y"] + one["height"] <= two["y"]
    assert robin.page.evaluate("document.documentElement.scrollWidth") <= 360
    buttons = robin.page.locator(".verdicts button").all()
    assert all(button.bounding_box()["height"] >= 44 for button in buttons)
    assert robin.page.get_by_role("button", name="A is better").bounding_box()["y"] < 740
    robin.page.get_by_text("How much, and why").tap()
    robin.page.locator(".segments span", has_text="much").tap()
    robin.click("A is better", then="Question 2")
    assert next(iter(server.desk.votes.values())).strength == 3


def test_hostile_text_does_nothing(make_server: MakeServer, visit):
    whole = "\n\n".join(HOSTILE)
    server = make_server(
        [(whole, whole, whole), *[(text, text, text) for text in HOSTILE], ("end", "a", "b")]
    )
    robin = visit(server.links[0])
    for number in range(1, len(server.desk.questions)):
        assert robin.page.evaluate("window.hacked === undefined && parent === window")
        assert (
            robin.page.locator(".text :is(a, img, svg, iframe, form, button, input, style, script)").count()
            == 0
        )
        assert robin.page.locator("button[name=winner]").count() == 5
        robin.page.keyboard.press("ab"[number % 2])
        wait_until(lambda count=number: len(server.desk.votes) == count)
        robin.page.wait_for_selector(f'[data-task="{number + 1}"]')
    assert robin.page.url == f"http://127.0.0.1:{server.port}/"
