"""What the owner of a page decides about it."""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from rlhf_cli.preference.web.security import host_name, is_loopback

_WILDCARDS = {"0.0.0.0", "::"}
_SOMEWHERE_ELSE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # RFC 5737, RFC 3849: nobody


@dataclass(frozen=True, slots=True)
class WebSettings:
    """`owner` is the name under which the owner votes; `annotators` get a link each; `guidelines` is Markdown.

    `public_url` is where annotators find the page if it is not where the server listens: behind a proxy.
    """

    owner: str
    host: str = "127.0.0.1"
    port: int = 8642
    annotators: tuple[str, ...] = ()
    guidelines: str = ""
    public_url: str | None = None

    @property
    def local_url(self) -> str:
        """The address that works on this machine."""
        return f"http://{_bracketed(_LOOPBACK.get(self.host, self.host))}:{self.port}"

    @property
    def shared_url(self) -> str:
        """The address to send to others."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return f"http://{_bracketed(_outward_address(self.host))}:{self.port}"

    @property
    def public_host(self) -> str | None:
        return host_name(urlsplit(self.public_url).netloc) if self.public_url else None

    @property
    def is_encrypted(self) -> bool:
        return self.shared_url.startswith("https:")

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach the server."""
        return not is_loopback(self.host)

    @property
    def cookie(self) -> str:
        """The session's cookie; browsers keep cookies by host alone, so the port tells two servers apart."""
        return f"rlhf_{self.port}"


_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _outward_address(host: str) -> str:
    """Return the address under which other machines see a server bound to `host`."""
    if host not in _WILDCARDS:
        return host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_SOMEWHERE_ELSE[family], 9))  # a datagram socket sends nothing on connect
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
