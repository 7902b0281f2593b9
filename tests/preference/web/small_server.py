"""A server over a small store in its own process: `small_server.py FOLDER PORT NUM_PAIRS`; SIGTERM ends it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from small_store import fill

from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.web.serve import serve
from rlhf_cli.preference.web.settings import WebSettings
from rlhf_cli.preference.web.work import VoteWork
from rlhf_cli.run.signals import StopFlag


def main(folder: str, port: str, num_pairs: str) -> None:
    path = Path(folder) / "collect.db"
    settings = WebSettings(owner="robin", port=int(port), annotators=("ana", "ben"))
    with StopFlag().installed() as stop, Store(path) as store:
        if not store.prompts():
            fill(store, [(f"one {i}", f"two {i}") for i in range(int(num_pairs))])
        with Desk(store, votes_per_pair=1, overlap_fraction=0.0, seed=0) as desk:
            work = VoteWork(desk, tags=["clear"], votes=store.votes)
            serve(work, settings, path.with_name("access.db"), should_stop=lambda: stop.requested, say=say)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
