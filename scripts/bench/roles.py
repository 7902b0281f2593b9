"""Show what each role of PPO adds to memory under LoRA: python -m scripts.bench.roles --model DIR --reward RUN

`--reward` is a run of train-rm with LoRA on `--model`. Prints JSON: MiB this process holds alone (its proportional set
size, PSS) beyond what it held before the first model, after each role was opened and has read a row.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from rlhf_cli.config.sections import Lora, Model
from rlhf_cli.models.heads import load_reward_model, open_critic
from rlhf_cli.models.load import load_vocabulary, open_policy

LORA = Lora(rank=16)


def main() -> None:
    """Open the roles one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reward", type=Path, required=True)
    arguments = parser.parse_args()
    before = resident_mebibytes()
    held: dict[str, int] = {}
    opened = []
    for name, open_role in roles(str(arguments.model), str(arguments.reward)).items():
        model = open_role()
        with torch.no_grad():
            model(input_ids=torch.arange(2, 34)[None])
        opened.append(model)
        held[name] = resident_mebibytes() - before
    print(json.dumps(held))


def roles(model: str, reward: str) -> dict[str, Callable[[], torch.nn.Module]]:
    """Open the roles as `rlhf ppo` does. The reference is the policy with its adapters off."""
    section = Model(path=model, lora=LORA)
    policy = open_policy(section, load_vocabulary(section), 0)
    rewards = load_reward_model(reward, policy)
    if not rewards.on_policy_base:
        raise SystemExit(f"error: {reward} is no adapter on {model}")
    return {
        "policy and reference": lambda: policy.model,
        "reward model": lambda: rewards.loaded.model,
        "critic": lambda: open_critic(section, policy, rewards, seed=0).classifier,
    }


def resident_mebibytes() -> int:
    """Read this process's proportional set size."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) // 1024
    raise SystemExit("error: /proc/self/smaps_rollup has no Pss line; this needs Linux")


if __name__ == "__main__":
    main()
