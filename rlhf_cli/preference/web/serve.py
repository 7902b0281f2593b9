"""Serve the page from inside a run, until everything is answered or the run is asked to stop."""

import math
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from rlhf_cli.errors import UnavailableError, UsageError
from rlhf_cli.preference.web.access import Access, Member
from rlhf_cli.preference.web.app import make_app
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import Work

_POLL_SECONDS = 0.1
_COUNT_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0  # for the last page to be read, and the last answer to be taken back
_SHUTDOWN_SECONDS = 3


def serve(
    work: Work,
    settings: WebSettings,
    access_path: Path,
    *,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Return once every answer is in, or `should_stop` says so; `say` gets the links.

    Raises UsageError where others reach the server and nobody is invited, UnavailableError for a taken port.
    """
    if settings.is_exposed and not settings.annotators:
        raise UsageError(
            f"{settings.host} can be reached from other machines, and nobody is invited",
            where="labeler.annotators",
            fix="name the annotators, or set labeler.host to 127.0.0.1",
        )
    with _listen(settings) as listener, Access(access_path) as access:
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(work, access, settings),
                log_config=None,
                access_log=False,  # addresses hold the links' tokens
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                limit_concurrency=256,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        # A thread of its own leaves signals to the run.
        thread = threading.Thread(target=server.run, args=([listener],), name="web", daemon=True)
        thread.start()
        try:
            _announce(access, settings, say)
            _wait(work, settings.owner, thread, should_stop)
        finally:
            server.should_exit = True
            thread.join(2 * _SHUTDOWN_SECONDS)


def _listen(settings: WebSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"cannot listen on {settings.host}, port {settings.port}: {error}",
            where="labeler.port",
            fix="stop what listens there, or choose another labeler.port",
        ) from error
    # Connections inherit it. Without it the body waits 40 ms for the browser to acknowledge the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _announce(access: Access, settings: WebSettings, say: Callable[[str], None]) -> None:
    """Print the owner's link, and one for each annotator who has none yet."""
    token = access.invite(Member(settings.owner, owner=True))
    lines = [
        f"Open {settings.local_url}/join/{token}",
        f"     to vote as {settings.owner} and to see progress; it works once.",
    ]
    standing = access.standing()
    for name in settings.annotators:
        if name in standing:
            lines.append(f"{name} has {'joined' if standing[name] == 'joined' else 'a link already'}.")
        else:
            token = access.invite(Member(name, owner=False))
            lines.append(f"Send {name} this link: {settings.shared_url}/join/{token}")
    if settings.is_exposed and not settings.is_encrypted:
        lines.append("The connection is not encrypted: whoever shares this network can read along.")
    lines.append("Ctrl-C stops; every vote is saved already, and the same command goes on.")
    say("\n".join(lines))


def _wait(work: Work, owner: str, thread: threading.Thread, should_stop: Callable[[], bool]) -> None:
    counted_at, finished_at = -math.inf, math.inf
    while thread.is_alive() and not should_stop():
        now = time.monotonic()
        if now - finished_at > _PATIENCE_SECONDS:
            return
        if now - counted_at > _COUNT_SECONDS:
            counted_at = now
            finished_at = min(finished_at, now) if work.progress(owner).finished else math.inf
        thread.join(_POLL_SECONDS)
