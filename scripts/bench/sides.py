"""Run one side of a comparison: our stage through its command, or TRL's trainer in TRL's environment."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench.process import Usage, run_measured

ROOT = Path(__file__).parent.parent.parent
TRL_VERSIONS = {"sft": "1.16.0", "train-rm": "1.16.0", "dpo": "1.16.0", "ppo": "1.11.0"}
ROW_FILES = {"sft": "sft.jsonl", "train-rm": "pairs.jsonl", "dpo": "pairs.jsonl", "ppo": "prompts.jsonl"}
LEARNING_RATE = 1e-5
BETA = 0.1
MAX_LENGTH = 512
NEW_TOKENS = 48
PPO_EPOCHS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: a stage on the rows of a world, with what both sides are told.

    `reward` is PPO's reward model, the world's own without it. `settings` overrides leaves of our configuration,
    `section.key` to value; TRL does not see it.
    """

    stage: str
    precision: str
    world: Path
    out: Path
    device: str = "cpu"
    batch_size: int = 8
    epochs: int = 1
    their_checkpointing: bool = True
    reward: Path | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def rows(self) -> Path:
        """Name the rows both sides train on."""
        return self.world / ROW_FILES[self.stage]

    @property
    def num_rows(self) -> int:
        """Count them."""
        return len(self.rows.read_text(encoding="utf-8").splitlines())


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run showed.

    seconds        training alone: optimizer steps, for DPO the reference's pass, for PPO all of the iteration
    wall_seconds   the whole process, from start to exit
    losses         mean loss of each optimizer step, as the side reports it
    """

    seconds: float
    wall_seconds: float
    peak_bytes: int
    losses: tuple[float, ...]


def run_ours(case: Case) -> Sample:
    """Run our stage and read when it trained from its own events and metrics."""
    case.out.mkdir(parents=True, exist_ok=True)
    config = case.out / "config.yaml"
    config.write_text(json.dumps(our_config(case), indent=1))
    command = [sys.executable, "-m", "rlhf_cli", case.stage, "--config", str(config), "--fresh", "--json"]
    usage = run_measured(command, case.out / "ours.log", gpu=case.device == "gpu")
    return read_run(case.out / "run", usage)


def read_run(run_dir: Path, usage: Usage) -> Sample:
    """Read a finished run: training lasts from its first event of that kind to its last line of metrics."""
    events, metrics = (read_jsonl(run_dir / name) for name in ("events.jsonl", "metrics.jsonl"))
    steps = [row for row in metrics if "loss" in row]
    began = min(float(str(e["time"])) for e in events if e["kind"] in ("reference", "training"))
    ended = max(float(str(row["time"])) for row in steps)
    losses = tuple(float(str(row["loss"])) for row in steps)
    return Sample(ended - began, usage.wall_seconds, usage.peak_bytes, losses)


def read_jsonl(path: Path) -> list[dict[str, object]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def our_config(case: Case) -> dict[str, object]:
    """Write our configuration: TRL's optimizer settings, no evaluation, one line of metrics per step."""
    tree: dict[str, dict[str, object]] = {
        "model": {"path": str(case.world / "model")},
        "data": {"train": [{"path": str(case.rows)}], "max_length": MAX_LENGTH},
        "optim": {"lr": LEARNING_RATE, "betas": [0.9, 0.999], "schedule": "linear", "warmup": 0.0},
        "train": {"epochs": case.epochs, "precision": case.precision},
        "log": {"every_steps": 1},
        "checkpoint": {"every_steps": 1_000_000, "keep": 1},
    }
    lists: dict[str, object] = {}
    if case.stage == "ppo":
        tree["rollout"] = {"batch_size": case.num_rows, "max_new_tokens": NEW_TOKENS}
        tree["ppo"] = {"epochs": PPO_EPOCHS, "iterations": 1}
        lists["reward"] = [{"kind": "model", "path": str(case.reward or case.world / "classifier")}]
    else:
        tree["train"]["batch_size"] = case.batch_size
    if case.stage == "dpo":
        tree["loss"] = {"beta": BETA}
    for name, value in case.settings.items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    return {"run_dir": str(case.out / "run"), **tree, **lists}


def run_theirs(case: Case, envs: Path) -> Sample:
    """Run TRL's trainer on the same rows in the order ours walks them."""
    case.out.mkdir(parents=True, exist_ok=True)
    spec, result = case.out / "spec.json", case.out / "result.json"
    spec.write_text(json.dumps(their_spec(case), indent=1))
    python = ensure_trl(envs, TRL_VERSIONS[case.stage])
    command = [str(python), str(Path(__file__).with_name("theirs.py")), str(spec), str(result)]
    usage = run_measured(command, case.out / "theirs.log", gpu=case.device == "gpu")
    told = json.loads(result.read_text())
    history = [row for row in told["history"] if "loss" in row]
    losses = tuple(float(row["loss"]) for row in history)
    return Sample(told["seconds"], usage.wall_seconds, usage.peak_bytes, losses)


def their_spec(case: Case) -> dict[str, object]:
    """Say to TRL what our configuration says to us."""
    return {
        "stage": case.stage,
        "precision": case.precision,
        "device": case.device,
        "out": str(case.out / "trl"),
        "model": str(case.world / "model"),
        "classifier": str(case.world / "classifier"),
        "ordered_rows": str(case.world / "ordered" / ROW_FILES[case.stage]),
        "batch_size": case.batch_size,
        "rollout_batch_size": case.num_rows,
        "epochs": case.epochs,
        "lr": LEARNING_RATE,
        "beta": BETA,
        "max_length": MAX_LENGTH,
        "max_new_tokens": NEW_TOKENS,
        "ppo_epochs": PPO_EPOCHS,
        "their_checkpointing": case.their_checkpointing,
    }


def ensure_trl(envs: Path, version: str) -> Path:
    """Give the interpreter of an environment with this TRL, making the environment when it is not there."""
    folder = envs / f"trl-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        pins = (Path(__file__).with_name("trl-constraints.txt")).resolve()
        print(f"making {folder}", file=sys.stderr)
        run_measured([sys.executable, "-m", "venv", str(folder)], envs / "venv.log")
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(pins), "torch", f"trl=={version}"]
        run_measured(install, envs / "pip.log")
    return python
