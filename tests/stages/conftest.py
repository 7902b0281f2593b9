"""A policy that answers and stops, a reward model for it, and a PPO run on them."""

from pathlib import Path

import pytest
from tiny import Settings, Tiny, run_stage

REWARDS = """
def share_of_e(prompt, completion, extra):
    assert prompt.startswith("Color of the ") and extra["place"] >= 0
    assert "<|" not in completion
    return completion.count("e") / max(1, len(completion))

def nan(prompt, completion, extra):
    return float("nan")
"""


@pytest.fixture(scope="session")
def upstream(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of sft and train-rm; the policy answers "it is red" and the like, and stops."""
    folder = tmp_path_factory.mktemp("upstream")
    changes = {"train__max_steps": 40, "train__batch_size": 12, "optim__lr": 0.01, "log__every_steps": 20}
    run_stage("sft", tiny.settings("sft", **changes), folder)
    changes = {"model__path": str(folder / "sft"), "train__max_steps": 6}
    run_stage("train-rm", tiny.settings("train-rm", **changes), folder)
    (folder / "rewards.py").write_text(REWARDS)
    return folder


@pytest.fixture
def settings(tiny: Tiny, upstream: Path, work: Path) -> Settings:
    """A run on a function reward, from the sft run."""
    function = {"kind": "function", "function": f"{upstream}/rewards.py:share_of_e"}
    return tiny.settings(
        "ppo", model__path=str(upstream / "sft"), reward=[function], rollout__max_new_tokens=12
    )
