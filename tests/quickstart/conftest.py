"""The folders that scripts/quickstart leaves behind, with tiny random models in them."""

import json
from pathlib import Path

import pytest
import torch
from example_requests import REQUESTS, SCALE

from rlhf_cli.config.sections import FromScratch, Model
from rlhf_cli.models.heads import load_classifier
from rlhf_cli.models.load import Vocabulary, make_policy, make_vocabulary
from rlhf_cli.models.save import save_model
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import ConfigRecord, Manifest, Result


def write_manifest(folder: Path, stage: str, metrics: dict[str, float | None]) -> None:
    Manifest(
        stage=stage,
        status="completed",
        seed=3,
        config=ConfigRecord(digest="", tree={"rollout": {"max_new_tokens": 7}}),
        result=Result(artifact="model", steps=1, metrics=metrics),
        extra={"score_scale": SCALE} if stage == "train-rm" else {},
    ).write(RunDir(folder))
    RunDir(folder).report.touch()


def save_policy(folder: Path, section: FromScratch, vocabulary: Vocabulary, seed: int) -> None:
    torch.manual_seed(seed)
    model = make_policy(section, vocabulary).model
    with torch.no_grad():  # or the tied head would only repeat the last token
        for weight in model.model.layers.parameters():
            if weight.dim() == 2:
                weight.mul_(20)
    save_model(model, vocabulary, RunDir(folder).model)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("example")
    (root / "data").mkdir()
    rows = [json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in REQUESTS]
    (root / "data" / "eval_prompts.jsonl").write_text("".join(rows))
    section = FromScratch(hidden_size=16, num_layers=1, num_heads=2, vocab_size=300, max_positions=256)
    vocabulary = make_vocabulary(section, [prompt for prompt, _ in REQUESTS])
    for seed, name in enumerate(("sft", "dpo", "ppo")):
        save_policy(root / name, section, vocabulary, seed)
        write_manifest(root / name, name, {})
    loaded = load_classifier(Model(path=str(root / "sft")), vocabulary, new_head_seed=5)
    save_model(loaded.model, vocabulary, RunDir(root / "rm").model)
    write_manifest(root / "rm", "train-rm", {"eval/accuracy": 0.8125})
    return root
