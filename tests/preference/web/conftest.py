"""A page over a scripted desk, and a browser's worth of manners to visit it with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_desk import ScriptedDesk
from starlette.testclient import TestClient
from visitors import BASE, OWNER, MakePage, Page

from rlhf_cli.preference.web.access import Access, Member
from rlhf_cli.preference.web.app import make_app
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import VoteWork
from rlhf_cli.records import Message

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
