"""Kill a person's terminal session with SIGKILL again and again while they vote, and check what was stored.

usage: scripts/collect/kill_terminal.py [--rounds 100]

A vote counts as acknowledged once the next question is on the screen. Prints one JSON object; exits with 1 when an
acknowledged vote is missing or any vote is there twice.
"""

import argparse
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Prompt

_CHILD = """
import sys
from pathlib import Path
from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.terminal import open_terminal
from rlhf_cli.preference.voting import ask_person

with Store(Path(sys.argv[1])) as store, Desk(store, votes_per_pair=1, overlap_fraction=0, seed=0) as desk:
    for _ in ask_person(desk, open_terminal("ana", tags=[], stopped=lambda: False)):
        pass
"""
_KEYS = "abtxs"
_NUMBER = re.compile(rb" (\d+) of \d+ ")


def main() -> int:
    """Run the rounds and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    num_rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "collect.db") as store:
        _fill(store, 100 * num_rounds)
        most_acknowledged = 0
        lost = 0
        for number in range(num_rounds):
            acknowledged = _sitting(store.path, random.Random(number))
            lost += max(0, acknowledged - store.num_votes("ana"))
            most_acknowledged = max(most_acknowledged, acknowledged)
        twice = store.rows("SELECT COUNT(*) - COUNT(DISTINCT presentation_id) FROM judgements")[0][0]
        report = {
            "kills": num_rounds,
            "acknowledged": most_acknowledged,
            "stored": store.num_votes("ana"),
            "lost": lost,
            "twice": twice,
            "integrity": store.rows("PRAGMA integrity_check")[0][0],
        }
    json.dump(report, sys.stdout)
    sys.stdout.write("\n")
    return 0 if not lost and not twice and report["integrity"] == "ok" else 1


def _fill(store: Store, num_pairs: int) -> None:
    store.add_prompts([Prompt(f"question {i}", f"p:{i}") for i in range(num_pairs)])
    for sample in (0, 1):
        answers = (
            Response(i, 0, sample, "m", "d", 1.0, 1.0, i, "stop", f"{sample}")
            for i in range(1, num_pairs + 1)
        )
        store.add_responses(answers)
    store.add_pairs(store.unpaired((0, 0), (0, 1)))


def _sitting(path: Path, chance: random.Random) -> int:
    """Vote until killed at a random moment; return how many votes the screen has acknowledged in all sittings."""
    screen, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 120
    kill_at = None
    acknowledged = 0
    while kill_at is None or time.monotonic() < kill_at:
        if time.monotonic() > deadline:
            raise SystemExit("the session shows nothing")
        if not select.select([screen], [], [], 0.005)[0]:
            continue
        shown += os.read(screen, 65536)
        if b"quit" not in shown.rpartition(b" of ")[2]:
            continue  # the keys stand below a question that is complete
        acknowledged = int(_NUMBER.findall(re.sub(rb"\x1b\[[0-9;]*m", b"", shown))[-1]) - 1
        shown = b""
        kill_at = kill_at or time.monotonic() + chance.uniform(0.05, 0.6)
        os.write(screen, _KEYS[acknowledged % len(_KEYS)].encode())
    child.send_signal(signal.SIGKILL)
    child.wait()
    os.close(screen)
    return acknowledged


if __name__ == "__main__":
    sys.exit(main())
