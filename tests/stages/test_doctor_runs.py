"""The doctor in real runs: it tells a fault once, and says nothing of runs that have none."""

import json
from pathlib import Path

from tiny import Settings, Tiny, override, rules_told, run_stage


def test_answers_that_never_end_are_told_once_and_shown(tiny: Tiny, work: Path):
    """The untrained model hardly ever ends an answer of 6 tokens."""
    run = run_stage("ppo", tiny.settings("ppo", ppo__iterations=4, optim__lr=1e-6), work)
    assert rules_told(run).count("eos_disappears") == 1
    assert "doctor: EOS is missing" in run.dir.log.read_text()
    assert "EOS is missing" in run.dir.report.read_text()


def test_a_run_that_is_interrupted_does_not_tell_again(tiny: Tiny, work: Path):
    once = tiny.settings("ppo", ppo__iterations=4, optim__lr=1e-6)
    run = run_stage("ppo", once, work)
    before = rules_told(run)
    for path in (run.dir.model, run.dir.manifest):
        path.rename(path.with_name(f"gone-{path.name}"))
    manifest = json.loads((run.dir.root / "gone-manifest.json").read_text())
    manifest |= {"status": "preempted", "result": None}
    run.dir.manifest.write_text(json.dumps(manifest))
    assert rules_told(run_stage("ppo", once, work)) == before


def test_a_small_run_whose_reward_rises_hears_of_its_critic_at_most(settings: Settings, work: Path):
    healthy = override(settings, rollout={"batch_size": 24}, ppo={"iterations": 8}, optim={"lr": 3e-3})
    told = rules_told(run_stage("ppo", healthy, work))
    assert set(told) <= {"critic_explains_nothing"}  # true after 16 updates of a critic with a new head


def test_healthy_runs_of_the_other_stages_hear_nothing(tiny: Tiny, work: Path):
    evaluated = {"data__eval_fraction": 0.3, "eval": {"every_steps": 3}, "train__max_steps": 12}
    for stage in ("sft", "train-rm", "dpo"):
        assert rules_told(run_stage(stage, tiny.settings(stage, **evaluated), work)) == []
