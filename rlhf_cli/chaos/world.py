"""A world small enough to be destroyed thousands of times: data, models of a few thousand weights, five runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.chaos.forks import Forks
from rlhf_cli.errors import RlhfError

STAGES = ("sft", "train-rm", "dpo", "ppo", "collect")
CHECKPOINT_EVERY = 2
NUM_STEPS = 5

_COLORS = ("red", "blue", "green", "white", "black", "gold")
_RULE = """
def shorter(prompt, first, second, extra):
    return 0.5 if len(first) == len(second) else float(len(first) < len(second))
"""


@dataclass(frozen=True)
class World:
    """A folder with one configuration per stage, and the process that forks the runs."""

    folder: Path
    forks: Forks

    def command(self, stage: str, run_dir: Path) -> list[str]:
        """Give the command line that works on the stage's run in `run_dir`."""
        return [stage, "--config", str(self.folder / f"{stage}.yaml"), "--run-dir", str(run_dir)]


def build_world(folder: Path) -> World:
    """Write data and configurations, and train the models that the later stages start from."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [f"Color of fox {n}: " for n in range(len(_COLORS))]
    right = [f"it is {color}" for color in _COLORS]
    wrong = [f"who knows {color}" for color in reversed(_COLORS)]
    _write_rows(folder / "demos.jsonl", ("prompt", "completion"), prompts, right)
    _write_rows(folder / "pairs.jsonl", ("prompt", "chosen", "rejected"), prompts, right, wrong)
    _write_rows(folder / "prompts.jsonl", ("prompt",), prompts)
    (folder / "rule.py").write_text(_RULE, encoding="utf-8")
    for name, config in _configs(folder).items():
        (folder / f"{name}.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML
    world = World(folder, Forks(folder))
    world.forks.warm_up()
    for name, stage in (("base", "sft"), ("rm", "train-rm")):
        arguments = [stage, "--config", str(folder / f"{name}.yaml")]
        ended = world.forks.run(arguments)
        if ended.code != 0:
            raise RlhfError(f"the world could not be built: {' '.join(arguments)}: {ended.said}")
    return world


def _write_rows(path: Path, names: Sequence[str], *columns: Sequence[str]) -> None:
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _configs(folder: Path) -> Mapping[str, dict[str, object]]:
    """Give all configurations. Steps, checkpoints and lines of metrics are few, so that all can be struck."""
    base, pairs = str(folder / "base"), str(folder / "pairs.jsonl")
    from_scratch = {
        "hidden_size": 16,
        "num_heads": 2,
        "num_layers": 1,
        "vocab_size": 270,
        "max_positions": 64,
    }
    rows = {"max_steps": NUM_STEPS, "batch_size": 4}
    common: dict[str, object] = {
        "seed": 3,
        "optim": {"lr": 3e-3},
        "log": {"every_steps": 1},
        "checkpoint": {"every_steps": CHECKPOINT_EVERY, "keep": 2},
    }

    def training(path: str, **sections: object) -> dict[str, object]:
        data = {"train": [{"path": path}], "max_length": 64}
        return common | {"model": {"path": base}, "data": data, "train": rows} | sections

    demos, prompts = str(folder / "demos.jsonl"), str(folder / "prompts.jsonl")
    return {
        "base": training(demos, run_dir=base, model={"from_scratch": from_scratch}),
        "rm": training(pairs, run_dir=str(folder / "rm")),
        # Dropout draws from the global generator, whose state must survive.
        "sft": training(demos, run_dir="sft", model={"path": base, "lora": {"rank": 2, "dropout": 0.2}}),
        "train-rm": training(pairs, run_dir="train-rm"),
        "dpo": training(pairs, run_dir="dpo"),
        "ppo": training(
            prompts,
            run_dir="ppo",
            train={},
            reward=[{"kind": "model", "path": str(folder / "rm")}],
            rollout={"batch_size": 4, "max_new_tokens": 5},
            ppo={
                "epochs": 1,
                "minibatches": 2,
                "iterations": 3,
                "kl": {"coef": 0.05, "target": 0.01, "horizon": 50},
            },
        ),
        "collect": {
            "run_dir": "collect",
            "seed": 3,
            "prompts": [{"path": prompts}],
            "candidates": [{"path": base, "temperature": 1.0}],
            "generation": {"max_new_tokens": 5, "batch_size": 4},
            "labeler": {"kind": "rule", "function": f"{folder / 'rule.py'}:shorter", "noise": 0.2},
        },
    }
