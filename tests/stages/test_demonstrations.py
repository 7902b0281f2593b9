"""`kind: demonstrations` through the command line: a person in the page, then `rlhf sft` on what they wrote."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rlhf_cli.cli import main

CONFIG = """
run_dir: run
kind: demonstrations
prompts: [{path: prompts.jsonl}]
labeler: {kind: web, port: %d, annotator: ana}
template: chat
"""
SFT = """
run_dir: sft
model: {from_scratch: {hidden_size: 16, num_layers: 1, num_heads: 2, vocab_size: 280, max_positions: 128}}
data: {train: [{path: run}], max_length: 128}
optim: {lr: 1.0e-3}
train: {max_steps: 1, batch_size: 2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "What is rain?"}, {"prompt": "What is snow?"}, {"prompt": "What is rain?"}]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def fields_of(page: str) -> dict[str, str]:
    form = page.partition('action="/answer"')[2].partition("</form>")[0]
    words = [part.partition('"') for part in form.split('<input type="hidden" name="')[1:]]
    return {name: rest.partition('value="')[2].partition('"')[0] for name, _, rest in words}


def test_from_the_page_to_sft(place: Path, free_port: int):
    Path("collect.yaml").write_text(CONFIG % free_port)
    command = [sys.executable, "-m", "rlhf_cli", "collect", "--config", "collect.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            link = next(word for line in child.stderr for word in line.split() if "/join/" in word)
            with httpx.Client(follow_redirects=True, base_url=f"http://127.0.0.1:{free_port}") as client:
                page = client.get(link).text
                for text in ("Water that falls.", "Frozen rain."):
                    page = client.post(
                        "/answer", data=fields_of(page) | {"text": text, "action": "save"}
                    ).text
                assert "All done" in page
            assert child.wait(30) == 0
        finally:
            child.kill()
    rows = [json.loads(line) for line in Path("run/demonstrations.jsonl").read_text().splitlines()]
    assert [row["completion"][0]["content"] for row in rows] == ["Water that falls.", "Frozen rain."]
    assert rows[0]["prompt"] == [{"role": "user", "content": "What is rain?"}]
    metrics = json.loads(Path("run/manifest.json").read_text())["result"]["metrics"]
    assert (metrics["num_prompts"], metrics["num_written"]) == (2, 2)
    Path("sft.yaml").write_text(SFT)
    assert main(["sft", "--config", "sft.yaml"]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["labeler={kind: rule, function: 'm:f'}"], "rule cannot write answers"),
        (["candidates=[{path: a}, {path: b}]"], "one model gives drafts"),
        (["overlap={fraction: 0.5}"], "has no effect with kind: demonstrations"),
        (["kind=preferences"], "required with kind: preferences"),
    ],
)
def test_what_cannot_be_is_refused_with_the_key(
    place: Path, changes: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    Path("collect.yaml").write_text(CONFIG % 8642)
    arguments = [part for change in changes for part in ("--set", change)]
    assert main(["collect", "--config", "collect.yaml", *arguments]) == 78
    assert words in capsys.readouterr().err


def test_a_dry_run_counts_the_prompts(place: Path, capsys: pytest.CaptureFixture[str]):
    Path("collect.yaml").write_text(CONFIG % 8642)
    assert main(["collect", "--config", "collect.yaml", "--dry-run"]) == 0
    assert "prompts: 2, answered by people (web)" in capsys.readouterr().out
