"""Every shipped recipe runs, through the command line, on a tiny random model and tiny data of the same shape."""

import json
from pathlib import Path

import pytest
import torch

from rlhf_cli.cli import main
from rlhf_cli.config.sections import FromScratch
from rlhf_cli.models.load import make_policy, make_vocabulary
from rlhf_cli.models.save import save_model

ROOT = Path(__file__).parent.parent
QUESTIONS = [f"What is number {n}?" for n in range(12)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model, HH transcripts and reviews."""
    folder = tmp_path_factory.mktemp("recipes")
    section = FromScratch(hidden_size=32, num_layers=1, num_heads=2, vocab_size=320, max_positions=256)
    vocabulary = make_vocabulary(section, QUESTIONS)
    torch.manual_seed(0)
    save_model(make_policy(section, vocabulary).model, vocabulary, folder / "model")
    transcript = "\n\nHuman: {}\n\nAssistant: {}"
    hh = [
        {"chosen": transcript.format(q, "It is one."), "rejected": transcript.format(q, "No.")}
        for q in QUESTIONS
    ]
    for name, rows in (("hh", hh), ("reviews", [{"text": f"a fine film {q}"} for q in QUESTIONS])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rlhf(stage: str, recipe: str, *settings: str) -> int:
    sets = [word for setting in settings for word in ("--set", setting)]
    return main([stage, "--config", f"configs/{recipe}.yaml", *sets])


SMALL = ("train.batch_size=4", "train.max_steps=2", "train.precision=float32")
ROLLOUT = ("rollout.batch_size=4", "rollout.max_new_tokens=6", "train.precision=float32", "ppo.iterations=1")


def test_hh_chain(bench: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RUNS", str(bench / "runs"))
    rows = f"data.train.0.path={bench}/hh.jsonl"
    rule = ("labeler.kind=rule", "labeler.function=rlhf_cli.preference.rules:shorter")
    answers = (f"prompts.0.path={bench}/hh.jsonl", "limit=4", "generation.max_new_tokens=6")
    assert rlhf("sft", "hh/sft", f"model.path={bench}/model", rows, *SMALL) == 0
    assert rlhf("collect", "hh/collect", *answers, *rule) == 0
    assert rlhf("train-rm", "hh/train_rm", rows, *SMALL) == 0
    assert rlhf("ppo", "hh/ppo", rows, *ROLLOUT, "ppo.minibatches=2") == 0
    assert rlhf("dpo", "hh/dpo", rows, *SMALL) == 0
    for stage in ("sft", "rm", "ppo", "dpo"):
        assert (bench / "runs/hh" / stage / "model/config.json").exists()
        assert (bench / "runs/hh" / stage / "adapter/adapter_config.json").exists()


def test_sentiment_chain(bench: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RUNS", str(bench / "runs"))
    rows = f"data.train.0.path={bench}/reviews.jsonl"
    assert rlhf("sft", "sentiment/sft", f"model.path={bench}/model", rows, *SMALL) == 0
    assert rlhf("ppo", "sentiment/ppo", *ROLLOUT) == 0
