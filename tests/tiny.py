"""A tiny random model with tiny data, and ways to run a stage on them: in this process, or as a command."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf_cli.config.load import differing_keys, load_config, render_resolved
from rlhf_cli.config.sections import FromScratch
from rlhf_cli.models.load import Vocabulary, make_vocabulary
from rlhf_cli.models.save import save_model
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.session import Run, StageResult, open_run

COLORS = ["red", "blue", "green", "white", "black", "gold"]
THINGS = ["fox", "boat"]
PROMPTS = [f"Color of the {thing} number {n}: " for n in range(len(COLORS)) for thing in THINGS]
ANSWERS = [f"it is {color}" for color in COLORS for _ in THINGS]
WRONG = [f"who knows {color}" for color in reversed(COLORS) for _ in THINGS]

Settings = dict[str, Any]


@dataclass(frozen=True)
class Tiny:
    """Where the tiny model directory and the JSONL files are."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    @property
    def demonstrations(self) -> str:
        return str(self.folder / "demonstrations.jsonl")

    @property
    def comparisons(self) -> str:
        return str(self.folder / "comparisons.jsonl")

    @property
    def prompts(self) -> str:
        return str(self.folder / "prompts.jsonl")

    def settings(self, stage: str, **changes: object) -> Settings:
        """Give a small configuration of a stage; `optim__lr=1.0` changes a nested key."""
        sources = {"sft": self.demonstrations, "ppo": self.prompts}
        tree: Settings = {
            "run_dir": stage,
            "model": {"path": self.model},
            "data": {"train": [{"path": sources.get(stage, self.comparisons)}], "max_length": 64},
            "optim": {"lr": 3e-3, "schedule": "constant", "warmup": 0.0},
            "train": {"max_steps": 4, "micro_tokens": 256},
            "log": {"every_steps": 1},
            "checkpoint": {"every_steps": 2},
        }
        if stage == "ppo":
            tree["reward"] = [{"kind": "regex", "pattern": "e"}]
            tree["critic"] = {"init": "policy"}
            tree["rollout"] = {"batch_size": 8, "max_new_tokens": 6}
            tree["ppo"] = {"epochs": 2, "minibatches": 1, "iterations": 2}
            del tree["train"]["max_steps"]
        else:
            tree["train"]["batch_size"] = 8
        return changed(tree, changes)


def changed(tree: Settings, changes: Mapping[str, object]) -> Settings:
    """Copy a tree with some leaves replaced; `a__b` names b in a, None in place of a leaf removes it."""
    copy: Settings = json.loads(json.dumps(tree))
    for name, value in changes.items():
        *parents, leaf = name.split("__")
        section = copy
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(leaf, None)
        else:
            section[leaf] = value
    return copy


def override(settings: Settings, **sections: Settings) -> Settings:
    """Copy settings with some keys of some sections replaced."""
    return settings | {name: settings.get(name, {}) | keys for name, keys in sections.items()}


def make_tiny(folder: Path) -> Tiny:
    """Write the model and the data."""
    pairs = list(zip(PROMPTS, ANSWERS, WRONG, strict=True))
    write_rows(folder / "demonstrations.jsonl", [{"prompt": p, "completion": a} for p, a, _ in pairs])
    write_rows(folder / "comparisons.jsonl", [{"prompt": p, "chosen": a, "rejected": w} for p, a, w in pairs])
    write_rows(folder / "prompts.jsonl", [{"prompt": p, "place": i} for i, p in enumerate(PROMPTS)])
    save_tiny_model(folder / "model")
    return Tiny(folder)


def save_tiny_model(
    folder: Path, *, seed: int = 0, vocab_size: int = 300, hidden_size: int = 32, tied: bool = True
) -> Vocabulary:
    """Write a random Llama of two layers with a byte-level tokenizer."""
    section = FromScratch(vocab_size=vocab_size, max_positions=64)
    vocabulary = make_vocabulary(section, [*PROMPTS, *ANSWERS, *WRONG])
    config = LlamaConfig(
        vocab_size=len(vocabulary.tokenizer), hidden_size=hidden_size, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=None,
        eos_token_id=vocabulary.stop_ids[0], pad_token_id=vocabulary.pad_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    save_model(LlamaForCausalLM(config), vocabulary, folder)
    return vocabulary


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def spec_of(stage: str, settings: Settings, folder: Path) -> tuple[RunSpec, Any]:
    """Write the YAML file of a configuration and load it, as the command line would."""
    path = write_config(stage, settings, folder)
    loaded = load_config(stage, path, run_dir=str(folder / settings["run_dir"]))
    spec = RunSpec(
        stage=stage,
        root=Path(loaded.config.run_dir),
        digest=loaded.digest,
        tree=loaded.tree,
        source_text=loaded.source_text,
        resolved_text=render_resolved(loaded),
        argv=["rlhf", stage],
    )
    return spec, loaded.config


def write_config(stage: str, settings: Settings, folder: Path) -> Path:
    path = folder / f"{settings['run_dir']}.yaml"
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def run_stage(stage: str, settings: Settings, folder: Path) -> Run:
    """Run a stage in this process, errors coming through; the run holds all it left."""
    spec, config = spec_of(stage, settings, folder)
    with open_run(spec, differing_keys=differing_keys) as run:
        result: StageResult = stage_module(stage).run(config, run)
        run.finish(result)
    return run


def stage_module(stage: str) -> Any:
    return importlib.import_module(f"rlhf_cli.stages.{stage.replace('-', '_')}")


def start_command(stage: str, settings: Settings, folder: Path, *options: str) -> "subprocess.Popen[str]":
    """Start `python -m rlhf_cli STAGE` in `folder`, on one thread so that every run adds up alike."""
    command = [
        sys.executable,
        "-m",
        "rlhf_cli",
        stage,
        "--config",
        str(write_config(stage, settings, folder)),
        *options,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_command(stage: str, settings: Settings, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a stage as a command to its end."""
    process = start_command(stage, settings, folder)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def column(run_dir: RunDir, name: str) -> list[float]:
    """Read one metric in the order of steps."""
    rows = metrics_of(run_dir)
    return [row[name] for row in rows if name in row]


def metrics_of(run_dir: RunDir) -> list[dict[str, float]]:
    """Read the metrics without the times of day."""
    rows = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def rules_told(run: Run) -> list[str]:
    """List the rules by which the doctor found a run to be wrong."""
    events = [json.loads(line) for line in run.dir.events.read_text().splitlines()]
    return [event["rule"] for event in events if event["kind"] == "doctor"]
