"""What every request must be, and every reply carries, before a page is asked: ours alone, and nothing to execute."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_WILDCARDS = {"0.0.0.0", "::"}

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "X-Robots-Tag": "noindex",
}


class Guard:
    """Lets a request through to `app` if it names a host of ours and no other site has sent it."""

    def __init__(self, app: ASGIApp, *, bound: str, public_host: str | None = None) -> None:
        self._app = app
        self._bound = bound
        self._public_host = public_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Headers(scope=scope), str(scope["method"]))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, headers: Headers, method: str) -> PlainTextResponse | None:
        if not is_own_host(host_name(headers.get("host", "")), self._bound, self._public_host):
            return PlainTextResponse("this server is not known under that name\n", 400)
        if is_from_elsewhere(headers, reading=method in ("GET", "HEAD")):
            return PlainTextResponse("another site has sent this request\n", 403)
        return None


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port; "" where it makes no sense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_own_host(name: str, bound: str, public_host: str | None) -> bool:
    """Say whether a server bound to the address `bound` answers to `name`.

    A name that an attacker points at a loopback address (DNS rebinding) is none of ours. Bound to every address,
    it answers to addresses only: those cannot be pointed anywhere.
    """
    if name in {public_host, bound} - _WILDCARDS or (is_loopback(bound) and name in _LOOPBACK_NAMES):
        return bool(name)
    return bound in _WILDCARDS and (is_address(name) or name == "localhost")


def is_from_elsewhere(headers: Headers, *, reading: bool) -> bool:
    """Say whether the browser tells that another site is behind a request.

    A link may be followed from anywhere; anything else has to come from our own page. Without these headers the
    session's form token decides.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    if reading:
        followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not followed
    origin = headers.get("origin", "null")  # "null" is what no-referrer makes of our own forms
    return site != "same-origin" or (origin != "null" and urlsplit(origin).netloc != headers.get("host"))


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches `host`."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
