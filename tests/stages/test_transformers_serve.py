"""A judge behind a real OpenAI-compatible server: `transformers serve`, in an environment of its own.

It needs a Python with `transformers[serving]`; RLHF_SERVING_PYTHON names it where this one has not got it.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import run_stage

from rlhf_cli.cli import main
from rlhf_cli.config.sections import FromScratch
from rlhf_cli.models.load import make_policy, make_vocabulary
from rlhf_cli.models.save import save_model
from rlhf_cli.preference.judge.chat import ScriptedChat
from rlhf_cli.preference.judge.judging import Judge, JudgeSettings
from rlhf_cli.preference.judge.render import Case
from rlhf_cli.preference.judge.templates import load_template

PYTHON = os.environ.get("RLHF_SERVING_PYTHON", sys.executable)
SERVE = "from transformers.cli.transformers import main; main()"
TEMPLATE = """
description: As short as the tiny model needs it.
explains: false
labels: [A, B]
max_tokens: 4
user: "{conversation} {first} {second} A or B?"
"""


@dataclass(frozen=True)
class Served:
    url: str
    model: str
    template: Path
    policy: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a tiny model that has learned to answer every comparison with "A"."""
    needed = [PYTHON, "-c", "import fastapi, openai, uvicorn"]
    if subprocess.run(needed, capture_output=True, check=False).returncode:
        pytest.skip("no Python with transformers[serving]; name one in RLHF_SERVING_PYTHON")
    folder = tmp_path_factory.mktemp("served")
    template = folder / "short.yaml"
    template.write_text(TEMPLATE)
    policy = learn_to_say_a(folder, template)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    model = str(folder / "sft" / "model")
    command = [PYTHON, "-c", SERVE, "serve", model, "--device", "cpu", "--port", port]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, folder / "serve.log")
            yield Served(f"http://127.0.0.1:{port}/v1", model, template, policy)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def learn_to_say_a(folder: Path, template: Path) -> Path:
    """Train a tiny judge in `folder`/sft and return the random model it started as."""
    judge = Judge(ScriptedChat(lambda _: "A"), load_template(str(template)), JudgeSettings())
    cases = [Case(i, f"Tell me of {word}", ("red", f"blue {i}")) for i, word in enumerate("abcdefghijkl")]
    messages = [judge.requests(case)[0].messages for case in cases]
    rows = [
        {
            "messages": [
                *({"role": m.role, "content": m.content} for m in asked),
                {"role": "assistant", "content": "A"},
            ]
        }
        for asked in messages
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = FromScratch(hidden_size=32, num_layers=1, num_heads=2, vocab_size=400, max_positions=256)
    torch.manual_seed(0)
    vocabulary = make_vocabulary(section, [message.content for asked in messages for message in asked])
    save_model(make_policy(section, vocabulary).model, vocabulary, folder / "random")
    settings = {
        "run_dir": "sft",
        "model": {"path": str(folder / "random")},
        "data": {"train": [{"path": str(folder / "rows.jsonl")}], "max_length": 256},
        "optim": {"lr": 0.01},
        "train": {"max_steps": 40, "batch_size": 12},
    }
    run_stage("sft", settings, folder)
    return folder / "random"


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"not up in time: {log.read_text()[-2000:]}")


@pytest.mark.slow
def test_a_judge_that_always_says_a_gives_ties_and_no_preference(
    served: Served, work: Path, capsys: pytest.CaptureFixture[str]
):
    Path("prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Tell me of {w}"}) + "\n" for w in "abcdef")
    )
    Path("collect.yaml").write_text(
        f"""
run_dir: run
prompts: [{{path: prompts.jsonl}}]
candidates: [{{path: {served.policy}, temperature: 1.0}}]
generation: {{max_new_tokens: 5}}
labeler:
  kind: judge
  template: {served.template}
  chat: {{kind: server, url: "{served.url}", model: {served.model}, concurrency: 2}}
"""
    )
    assert main(["collect", "--config", "collect.yaml"]) == 0
    with sqlite3.connect("run/collect.db") as db:
        replies = [json.loads(reply) for (reply,) in db.execute("SELECT reply FROM calls")]
        votes = db.execute("SELECT winner, COUNT(*) FROM votes GROUP BY winner").fetchall()
    assert {reply["text"].strip() for reply in replies} == {"A"}
    assert {reply["label_probabilities"] for reply in replies} == {None}  # this server tells none
    assert all(reply["prompt_tokens"] > 20 for reply in replies)
    assert votes == [("tie", len(replies) // 2)]
    assert Path("run/preferences.jsonl").read_text() == ""


@pytest.mark.slow
def test_a_model_the_server_has_not_got_ends_the_run_with_its_words(
    served: Served, work: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"prompt": "Tell me of a", "chosen": "red", "rejected": "blue"}]
    Path("labels.jsonl").write_text(json.dumps(rows[0]) + "\n")
    Path("judge.yaml").write_text(
        f"""
run_dir: run
prompts: [{{path: labels.jsonl}}]
candidates: [{{path: x}}]
labeler:
  kind: judge
  template: {served.template}
  chat: {{kind: server, url: "{served.url}", model: nowhere/nothing, retries: 1, patience: 2}}
"""
    )
    assert main(["calibrate", "--config", "judge.yaml", "--labels", "labels.jsonl"]) in (0, 69)
    told = capsys.readouterr()
    assert "HTTP" in told.err or "NO GO" in told.out
