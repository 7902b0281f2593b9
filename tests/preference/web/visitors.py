"""Visits pages the way a browser without scripts does: read the form, fill it in, send it back."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser

from scripted_desk import ScriptedDesk
from starlette.applications import Starlette
from starlette.testclient import TestClient

from rlhf_cli.preference.web.access import Access
from rlhf_cli.preference.web.settings import WebSettings

BASE = "http://127.0.0.1:8642"
OWNER = "robin"


@dataclass(frozen=True)
class Page:
    desk: ScriptedDesk
    access: Access
    settings: WebSettings
    app: Starlette

    def visitor(self) -> TestClient:
        """Somebody without a session."""
        return TestClient(self.app, base_url=BASE)


MakePage = Callable[..., Page]


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._fields = self.forms.setdefault(given.get("action") or "", {})
        elif tag == "input" and given.get("type") == "hidden":
            self._fields[given["name"] or ""] = given.get("value") or ""


def forms_in(html: str) -> dict[str, dict[str, str]]:
    """Return the hidden fields of each form by its action."""
    parser = _Forms()
    parser.feed(html)
    return parser.forms


def send(client: TestClient, action: str, /, *, at: str = "/", headers: dict | None = None, **fields: object):
    """Load the page `at`, fill in `fields` of the form that posts to `action`, and send it."""
    form = forms_in(client.get(at).text)[action] | fields
    return client.post(action, data=form, headers=headers)


def text_of(html: str) -> str:
    """Return what a page says, without its tags and with single spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())
