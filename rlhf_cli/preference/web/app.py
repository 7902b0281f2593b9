"""The routes of the page. Every one works without a script."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rlhf_cli.errors import RlhfError
from rlhf_cli.preference.web.access import Access
from rlhf_cli.preference.web.pages import Entrance, OwnerPages, TaskPages
from rlhf_cli.preference.web.security import Guard
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.site import HERE, Site
from rlhf_cli.preference.web.work import Work


def make_app(work: Work, access: Access, settings: WebSettings) -> Starlette:
    """Build the application: tasks from `work`, for people with a link or a session from `access`."""
    site = Site(work, access, settings)
    tasks, entrance, office = TaskPages(site), Entrance(site), OwnerPages(site)
    routes = [
        Route("/", site.members(tasks.task)),
        Route("/answer", site.members(tasks.answer), methods=["POST"]),
        Route("/undo", site.members(tasks.undo), methods=["POST"]),
        Route("/history", site.members(tasks.history)),
        Route("/display", site.members(tasks.display), methods=["POST"]),
        Route("/join/{token}", entrance.look),
        Route("/join/{token}", entrance.join, methods=["POST"]),
        Route("/leave", site.members(entrance.leave), methods=["POST"]),
        Route("/owner", site.members(office.overview, owner=True)),
        Route("/owner/invite", site.members(office.invite, owner=True), methods=["POST"]),
        Route("/owner/revoke", site.members(office.revoke, owner=True), methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    guard = Middleware(Guard, bound=settings.host, public_host=settings.public_host)
    refusals = {HTTPException: site.refuse, RlhfError: site.fail}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=refusals)
