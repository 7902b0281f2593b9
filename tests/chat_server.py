"""A scripted OpenAI-compatible server on this machine: counts what reaches it, and misbehaves on request."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Body = dict[str, object]


@dataclass
class Answer:
    """What the server sends back; it waits `seconds` first."""

    content: str | None = "A"
    status: int = 200
    logprobs: object = None
    usage: Mapping[str, int] | None = None
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        choice = {"message": {"role": "assistant", "content": self.content}, "finish_reason": "stop"}
        body: Body = {"choices": [{**choice, "logprobs": self.logprobs}]}
        return json.dumps(body | ({"usage": self.usage} if self.usage else {})).encode()


Script = Callable[[Body, int], Answer]
"""f(request body, its number from 0) -> the answer."""


class ChatServer:
    """Keeps every request body and its headers, in the order they came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.num_open = self.most_open = 0
        self.url = ""
        self.lock = threading.Lock()
        self.closing = threading.Event()


@contextmanager
def serving(script: Script) -> Iterator[ChatServer]:
    server = ChatServer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                number = len(server.bodies)
                server.bodies.append(body | {"path": self.path})
                server.headers.append(dict(self.headers))
                server.num_open += 1
                server.most_open = max(server.most_open, server.num_open)
            answer = server.script(body, number)
            server.closing.wait(answer.seconds)
            with server.lock:
                server.num_open -= 1
            payload = answer.body()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
            except OSError:  # the client has hung up
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            http.shutdown()
            thread.join()


def shown(body: Body) -> tuple[str, str]:
    """Return the two answers as the judge saw them, (A, B)."""
    text = str(body["messages"][-1]["content"])  # type: ignore[index]
    found = re.findall(r"<answer-(?:A|B)-([0-9a-f]{10})>\n(.*?)\n</answer-(?:A|B)-\1>", text, re.DOTALL)
    (_, first), (_, second) = found
    return first, second


def prefer_longer(body: Body, _: int) -> Answer:
    """Judge like a person who counts characters."""
    first, second = shown(body)
    return Answer(
        "A" if len(first) > len(second) else "B", usage={"prompt_tokens": 100, "completion_tokens": 1}
    )


def top_logprobs(*alternatives: tuple[str, float], token: str | None = None) -> object:
    """Return the `logprobs` of a reply of one token."""
    token = token or alternatives[0][0]
    listed = [{"token": name, "logprob": value, "bytes": None} for name, value in alternatives]
    return {"content": [{"token": token, "logprob": alternatives[0][1], "top_logprobs": listed}]}
