"""A page over a scripted desk, visited with a browser's manners, or with a real browser."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import page_server
import pytest
from browsing import Visit
from page_server import MakeServer, Server
from scripted_desk import ScriptedDesk
from starlette.testclient import TestClient
from visitors import BASE, OWNER, MakePage, Page

from rlhf_cli.preference.web.access import Access, Member
from rlhf_cli.preference.web.app import make_app
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import VoteWork
from rlhf_cli.records import Message

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUESTIONS = [
    ((Message("user", "What is 2+2?"),), "It is **4**.", "Five."),
    ("Once upon a time", " there was a fox.", " fox fox fox"),
    ((Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye")), "Bye!", "No."),
]


@pytest.fixture
def make_page(tmp_path: Path) -> Iterator[MakePage]:
    """Give a page about `questions`, by default three of them, and its desk and access."""
    opened = []

    def make(questions: list | None = None, **settings: object) -> Page:
        desk = ScriptedDesk(questions or QUESTIONS)
        access = Access(tmp_path / "access.db")
        opened.append(access)
        work = VoteWork(desk, tags=["correct", "clear"], votes=desk.ballots)
        web = WebSettings(owner=OWNER, **settings)
        return Page(desk, access, web, make_app(work, access, web))

    yield make
    for access in opened:
        access.__exit__()


@pytest.fixture
def page(make_page: MakePage) -> Page:
    return make_page(annotators=("ana",))


@pytest.fixture
def owner(page: Page) -> TestClient:
    """The owner, just come in."""
    client = page.visitor()
    assert client.get(f"/join/{page.access.invite(Member(OWNER, owner=True))}").url == f"{BASE}/"
    return client


@pytest.fixture
def ana(page: Page) -> TestClient:
    """An annotator, just come in."""
    client = page.visitor()
    link = f"/join/{page.access.invite(Member('ana', owner=False))}"
    assert client.post(link, headers={"sec-fetch-site": "same-origin"}).url == f"{BASE}/"
    return client


@pytest.fixture(scope="module")  # while it is open, nothing else can run an event loop here
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("RLHF_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no chromium; name one in the environment variable RLHF_BROWSER")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    opened = []

    def make(questions: list | None = None) -> Server:
        server = Server(tmp_path, ScriptedDesk(questions or page_server.QUESTIONS))
        server.up()
        opened.append(server)
        return server

    yield make
    for server in opened:
        server.down()


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server()


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
