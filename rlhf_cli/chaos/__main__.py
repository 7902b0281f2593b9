"""`python -m rlhf_cli.chaos PLAN`, which `rlhf selftest chaos` starts in a process of its own."""

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.chaos import campaigns
from rlhf_cli.chaos.campaigns import Tally
from rlhf_cli.chaos.trials import Stage
from rlhf_cli.chaos.world import World, build_world
from rlhf_cli.commands.selftest import Plan


def main(plan: Plan) -> int:
    """Build a small world, destroy its runs, and say what came back. Gives 0 where all promises were kept."""
    folder = Path(plan.work or tempfile.mkdtemp(prefix="rlhf-chaos-"))
    world = build_world(folder)
    passed = True
    for tally in tallies(plan, world):
        _say(str(tally))
        passed &= tally.passed
    if "kill" in plan.operations:
        inside, behind = campaigns.naive_control(world)
        _say(f"{inside}\n    (this one has to fail)\n{behind}")
        passed &= bool(inside.failures) and behind.passed
    if passed and plan.work is None:
        shutil.rmtree(folder)
    elif not passed:
        _say(f"what failed is in {folder}")
    return 0 if passed else 1


def tallies(plan: Plan, world: World) -> Iterator[Tally]:
    """Run the campaigns of a plan, stage by stage."""
    chance = random.Random(plan.seed)
    for name in plan.stages:
        stage = Stage(world, name)
        calm = stage.calm_run()
        for action in plan.operations:
            yield campaigns.every_operation(stage, calm, action, every=plan.every)
        if plan.kills:
            yield campaigns.random_kills(stage, calm, plan.kills, chance)
        if plan.terms:
            yield campaigns.random_terms(stage, calm, plan.terms, chance)
        if name == "collect":  # has neither checkpoints nor gradients
            continue
        if plan.corruptions:
            yield campaigns.corruptions(world, calm, plan.corruptions, chance)
        if plan.nan:
            yield campaigns.poisonings(stage)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Plan(**json.loads(sys.argv[1]))))
