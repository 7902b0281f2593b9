"""The voting page in a thread of this process."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scripted_desk import ScriptedDesk
from test_web_serve import free_port

from rlhf_cli.preference.web.serve import serve
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import VoteWork, Work
from rlhf_cli.records import Message

QUESTIONS = [((Message("user", f"Question {i}"),), f"first {i}", f"second {i}") for i in range(1, 7)]


@dataclass
class Server:
    """The page in a thread of this process; it can be taken down and brought up again."""

    folder: Path
    desk: ScriptedDesk
    work: Work | None = None
    port: int = field(default_factory=free_port)
    said: list[str] = field(default_factory=list)

    def up(self) -> None:
        self._stop = threading.Event()
        self.said.clear()
        settings = WebSettings(owner="robin", port=self.port, annotators=("ana", "ben"))
        work = self.work or VoteWork(self.desk, tags=["correct", "clear"], votes=self.desk.ballots)
        arguments = (work, settings, self.folder / "access.db")
        options = {"should_stop": self._stop.is_set, "say": self.said.append}
        self._thread = threading.Thread(target=serve, args=arguments, kwargs=options)
        self._thread.start()
        wait_until(lambda: bool(self.said))

    def down(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def links(self) -> list[str]:
        return [word for word in self.said[0].split() if "/join/" in word]

    def said_by(self, name: str) -> dict[int, str]:
        return {index: verdict.winner for (who, index), verdict in self.desk.votes.items() if who == name}


MakeServer = Callable[..., Server]


def wait_until(happens: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
