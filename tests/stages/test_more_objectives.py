"""Losses without a reference and rewards of several models and of known answers, through the real stages."""

import json
from pathlib import Path

import pytest
from tiny import ANSWERS, PROMPTS, WRONG, Settings, Tiny, column, metrics_of, override, run_stage, write_rows

from rlhf_cli.config.problems import ConfigProblems


@pytest.mark.parametrize(
    "loss", [{"type": "simpo", "beta": 2.0, "target_margin": 0.5}, {"type": "orpo", "beta": 0.5}]
)
def test_losses_without_a_reference_learn_the_pairs(tiny: Tiny, work: Path, loss: Settings):
    run = run_stage(
        "dpo", tiny.settings("dpo", loss=loss, train__max_steps=12, data__eval_fraction=0.3), work
    )
    margins = column(run.dir, "margin")
    assert margins[-1] > margins[0] + 0.1
    assert column(run.dir, "eval/accuracy")[-1] >= 0.9
    assert "chosen_logratio" not in metrics_of(run.dir)[1]
    assert "reference" not in {parent.role for parent in run.manifest.parents}
    assert not (run.dir.root / "cache").exists()


def test_kto_learns_from_labels_alone(tiny: Tiny, work: Path):
    rows = [
        {"prompt": prompt, "completion": text, "label": good}
        for prompt, right, wrong in zip(PROMPTS, ANSWERS, WRONG, strict=True)
        for text, good in ((right, True), (wrong, False))
    ]
    data = {
        "train": [{"path": write_rows(work / "labels.jsonl", rows)}],
        "eval_fraction": 0.3,
        "max_length": 64,
    }
    changes = {"loss": {"type": "kto", "beta": 0.5, "bad_weight": 1.5}, "train__max_steps": 16}
    run = run_stage("dpo", tiny.settings("dpo", data=data, **changes), work)
    losses = column(run.dir, "eval/loss")
    assert losses[0] == pytest.approx((1 + 1.5) / 4)  # half of each weight where nothing is learnt
    assert losses[-1] < losses[0] - 0.1
    assert column(run.dir, "eval/accuracy")[-1] >= 0.75  # 12 held-out answers; 0.5 is chance
    assert column(run.dir, "eval/margin")[-1] > 1.0
    assert column(run.dir, "chosen_logratio")[-1] > 0.0


def test_kto_takes_pairs_apart(tiny: Tiny, work: Path):
    run = run_stage("dpo", tiny.settings("dpo", loss={"type": "kto"}), work)
    (report,) = json.loads(run.dir.data_report.read_text())
    assert (report["rows_read"], report["rows_kept"]) == (12, 24)


def test_micro_batches_do_not_change_what_kto_learns(tiny: Tiny, work: Path):
    """The divergence from the reference is a mean over the step, however small `micro_tokens` is."""
    losses = []
    for micro_tokens in (32, 4096):
        changes = {
            "train__micro_tokens": micro_tokens,
            "loss": {"type": "kto", "beta": 0.5},
            "optim__lr": 0.02,
        }
        run = run_stage("dpo", tiny.settings("dpo", run_dir=f"kto-{micro_tokens}", **changes), work)
        losses.append(column(run.dir, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.01


def test_keys_of_other_losses_are_refused(tiny: Tiny, work: Path):
    for changes in (
        {"loss__target_margin": 0.5},
        {"loss__bad_weight": 2.0},
        {"loss__type": "orpo", "reference": tiny.model},
    ):
        with pytest.raises(ConfigProblems, match=r"has no effect with loss\.type"):
            run_stage("dpo", tiny.settings("dpo", **changes), work)


def test_an_ensemble_of_one_model_twice_is_that_model(settings: Settings, upstream: Path, work: Path):
    path = str(upstream / "train-rm")
    ensemble = {"kind": "ensemble", "paths": [path, path], "std_weight": 2.0}
    one = override(settings, critic={"init": "reward"}, ppo={"iterations": 1})
    alone = run_stage("ppo", one | {"reward": [{"kind": "model", "path": path}], "run_dir": "alone"}, work)
    twice = run_stage("ppo", one | {"reward": [ensemble], "run_dir": "twice"}, work)
    assert column(twice.dir, "score/ensemble") == pytest.approx(column(alone.dir, "score/model"), abs=1e-5)
    assert column(twice.dir, "reward") == pytest.approx(column(alone.dir, "reward"), abs=1e-5)


def test_an_ensemble_of_two_models_is_below_their_mean(
    settings: Settings, tiny: Tiny, upstream: Path, work: Path
):
    changes = {"model__path": str(upstream / "sft"), "train__max_steps": 6, "seed": 7, "run_dir": "rm-7"}
    other = run_stage("train-rm", tiny.settings("train-rm", **changes), work).dir.root
    paths = [str(upstream / "train-rm"), str(other)]
    sources = [{"kind": "model", "path": path, "weight": 0.5} for path in paths]
    sources.append({"kind": "ensemble", "paths": paths, "std_weight": 1.0, "weight": 0.0})
    run = run_stage("ppo", override(settings, ppo={"iterations": 1}) | {"reward": sources}, work)
    row = metrics_of(run.dir)[0]
    mean = (row["score/model"] + row["score/model_2"]) / 2
    assert row["score/ensemble"] < mean - 1e-4
    assert {parent.path for parent in run.manifest.parents if parent.role == "reward"} == set(paths)


def test_known_answers_are_rewarded(settings: Settings, work: Path):
    rows = [{"prompt": f"Color of the fox number {n}: ", "place": n, "answer": "#### red"} for n in range(12)]
    data = {"train": [{"path": write_rows(work / "math.jsonl", rows)}]}
    reward = [{"kind": "answer", "pattern": "(red|blue|green|white|black|gold)"}]
    run = run_stage("ppo", override(settings, data=data) | {"reward": reward}, work)
    for row in metrics_of(run.dir):
        assert 0.0 <= row["score/answer"] <= 1.0
        assert row["score/answer"] * 8 == pytest.approx(round(row["score/answer"] * 8))
