"""The pages: a task, the history, the way in, and what the owner sees."""

from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from rlhf_cli.preference.web.access import Member
from rlhf_cli.preference.web.site import DISPLAY, Site, Visit

_MAX_NAME_CHARACTERS = 64
_YEAR_SECONDS = 365 * 24 * 3600


class TaskPages:
    """What an annotator sees."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def task(self, visit: Visit) -> Response:
        task = self._site.work.task(visit.member.name)
        if task is None:
            return self._site.page(visit, "rest.html")
        return self._site.page(visit, self._site.work.template, **task)

    def answer(self, visit: Visit) -> Response:
        if not visit.form.text("key"):
            raise HTTPException(422, "the form lacks its key")
        self._site.work.answer(visit.member.name, visit.form)
        return saved(visit)

    def undo(self, visit: Visit) -> Response:
        self._site.work.undo(visit.member.name, key=visit.form.text("key") or uuid4().hex)
        return saved(visit)

    def history(self, visit: Visit) -> Response:
        return self._site.page(visit, "history.html", past=self._site.work.history(visit.member.name))

    def display(self, visit: Visit) -> Response:
        """Keep how somebody likes to see the page, in cookies."""
        reply = saved(visit)
        for name, choices in DISPLAY.items():
            if (value := visit.form.text(name)) in choices:
                reply.set_cookie(name, value, max_age=_YEAR_SECONDS, httponly=True, samesite="lax")
        return reply


class Entrance:
    """The way in and out."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def look(self, request: Request) -> Response:
        """Show whom a link admits. Chats fetch links to preview them, so only the button behind it uses it up.

        The owner's link goes from the terminal straight into a browser, and needs no button.
        """
        token = request.path_params["token"]
        member = self._site.access.invited(token)
        if member is None:
            raise HTTPException(401, "This link was used already, or replaced. Ask for another one.")
        if member.owner and request.method == "GET":
            return self._redeem(token)
        welcome = self._site.work.welcome
        return self._site.public_page(request, "join.html", name=member.name, welcome=welcome)

    def join(self, request: Request) -> Response:
        """Exchange the link for a session."""
        return self._redeem(request.path_params["token"])

    def _redeem(self, token: str) -> Response:
        secret = self._site.access.redeem(token)
        if secret is None:
            raise HTTPException(401, "This link was used already, or replaced. Ask for another one.")
        return self._site.enter(secret)

    def leave(self, visit: Visit) -> Response:
        self._site.access.leave(visit.secret)
        return RedirectResponse("/", 303)


class OwnerPages:
    """Progress of everybody, agreement, links."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def overview(self, visit: Visit, link: str | None = None, invited: str | None = None) -> Response:
        site, people = self._site, {self._site.settings.owner: "owner"}
        people |= dict.fromkeys(site.settings.annotators, "") | site.access.standing()
        done = {name: site.work.progress(name).mine for name in people}
        table = site.work.overview()
        return site.page(
            visit, "owner.html", people=people, done=done, table=table, link=link, invited=invited
        )

    def invite(self, visit: Visit) -> Response:
        """Show a link for somebody, this once."""
        name = visit.form.text("name")
        if not (name.isprintable() and 0 < len(name) <= _MAX_NAME_CHARACTERS):
            raise HTTPException(422, f"A name has 1 to {_MAX_NAME_CHARACTERS} printable characters.")
        if name == self._site.settings.owner:
            raise HTTPException(422, "This is the owner's name. Choose another one.")
        token = self._site.access.invite(Member(name, owner=False))
        return self.overview(visit, f"{self._site.settings.shared_url}/join/{token}", name)

    def revoke(self, visit: Visit) -> Response:
        """End somebody's sessions and link; their answers stay."""
        self._site.access.revoke(visit.form.text("name"))
        return RedirectResponse("/owner", 303)


def saved(visit: Visit) -> Response:
    """Acknowledge: to the script in JSON, to a browser by the next page."""
    if "application/json" in visit.request.headers.get("accept", ""):
        return JSONResponse({"saved": True})
    return RedirectResponse("/", 303)
