"""What all pages share: who asks, how a page is put together, how a refusal looks."""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from uuid import uuid4

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from rlhf_cli.errors import RlhfError, RunConflictError
from rlhf_cli.preference.web.access import SESSION_SECONDS, Access, Member, form_token
from rlhf_cli.preference.web.forms import Form, read_form
from rlhf_cli.preference.web.rendering import markdown
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import Work

HERE = Path(__file__).parent
DISPLAY = {"theme": ("auto", "light", "dark"), "view": ("rendered", "raw")}

_TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_HEADLINES = {
    401: "Your link, please",
    404: "There is no such page",
    409: "Already settled",
    503: "Not saved",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A request from somebody who may make it; `form` is empty where nothing is posted."""

    request: Request
    secret: str
    member: Member
    form: Form


class Site:
    """Answers for sessions and looks; the pages themselves are functions of a Visit."""

    def __init__(self, work: Work, access: Access, settings: WebSettings) -> None:
        self.work = work
        self.access = access
        self.settings = settings

    def members(
        self, handle: Callable[[Visit], Response], *, owner: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """Admit sessions alone, of the `owner` alone where asked, and posts only with the session's form token."""

        async def admit(request: Request) -> Response:
            secret = request.cookies.get(self.settings.cookie, "")
            member = await run_in_threadpool(self.access.member, secret)
            if member is None:
                raise HTTPException(
                    401, "Open the link you were sent. The owner finds theirs in the terminal."
                )
            if owner and not member.owner:
                raise HTTPException(404, "Go back to the questions.")
            form = await read_form(request) if request.method == "POST" else Form({})
            given, due = form.text("form_token"), form_token(secret)
            if request.method == "POST" and not compare_digest(given.encode(), due.encode()):
                raise HTTPException(403, "This form is from another session. Load the page again.")
            return await run_in_threadpool(handle, Visit(request, secret, member, form))

        return admit

    def page(self, visit: Visit, template: str, **content: object) -> Response:
        """Render a page for a member."""
        content |= {
            "member": visit.member,
            "form_token": form_token(visit.secret),
            "key": uuid4().hex,
            "progress": self.work.progress(visit.member.name),
            "guidelines": markdown(self.settings.guidelines),
        }
        return self._render(visit.request, template, content)

    def public_page(
        self, request: Request, template: str, *, status: int = 200, **content: object
    ) -> Response:
        """Render a page for anybody."""
        return self._render(request, template, {"member": None, **content}, status)

    def enter(self, secret: str) -> Response:
        """Go to the first question with a session's secret in a cookie that scripts cannot read."""
        reply = RedirectResponse("/", 303)
        reply.set_cookie(
            self.settings.cookie,
            secret,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="lax",  # strict would leave it out when a chat's link is followed
            secure=self.settings.is_encrypted,
        )
        return reply

    def refuse(self, request: Request, error: Exception) -> Response:
        """Say in words why not."""
        assert isinstance(error, HTTPException)
        return self._refusal(request, error.status_code, error.detail)

    def fail(self, request: Request, error: Exception) -> Response:
        """Say that something was not saved; never where: paths can name models."""
        assert isinstance(error, RlhfError)
        is_transient = isinstance(error.__cause__, sqlite3.Error)  # somebody else is writing for long
        if isinstance(error, RunConflictError) and not is_transient:
            return self._refusal(request, 409, error.message)
        return self._refusal(
            request, 503, f"{error.message}. Try again; tell the owner if it stays like this."
        )

    def _refusal(self, request: Request, status: int, words: str) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"error": words}, status)
        headline = _HEADLINES.get(status, "That did not work")
        return self.public_page(request, "message.html", status=status, headline=headline, words=words)

    def _render(
        self, request: Request, template: str, content: dict[str, object], status: int = 200
    ) -> Response:
        looks = {
            name: value if (value := request.cookies.get(name)) in choices else choices[0]
            for name, choices in DISPLAY.items()
        }
        return HTMLResponse(_TEMPLATES.get_template(template).render(**looks, **content), status)
