"""What stages leave for the report besides their metrics, on real runs: distributions, and answers over time."""

import json
from pathlib import Path

import pytest
from tiny import ANSWERS, PROMPTS, WRONG, Settings, Tiny, column, override, run_stage, write_rows

from rlhf_cli.run.report.source import read_answers


@pytest.mark.parametrize(("fraction", "rows"), [(0.4, "held out"), (0.0, "training")])
def test_train_rm_leaves_scores_and_calibration(tiny: Tiny, work: Path, fraction: float, rows: str):
    run = run_stage("train-rm", tiny.settings("train-rm", data__eval_fraction=fraction), work)
    facts = json.loads(run.dir.evaluation.read_text())
    assert facts["rows"] == rows
    num_pairs = facts["num_pairs"]
    assert sum(facts["score_histogram"]["chosen"]) == sum(facts["score_histogram"]["rejected"]) == num_pairs
    assert sum(it["count"] for it in facts["calibration"]) == num_pairs
    if rows == "held out":
        right = sum(it["count"] * it["accuracy"] for it in facts["calibration"])
        assert right / num_pairs == pytest.approx(column(run.dir, "eval/accuracy")[-1])


def test_train_rm_tells_its_accuracy_on_each_source(tiny: Tiny, work: Path):
    """One source says what is trained, the other the opposite."""
    pairs = list(zip(PROMPTS, ANSWERS, WRONG, strict=True))
    against = [{"prompt": prompt, "chosen": wrong, "rejected": right} for prompt, right, wrong in pairs]
    other = write_rows(work / "against.jsonl", against)
    settings = tiny.settings("train-rm", data__eval=[{"path": tiny.comparisons}, {"path": other}])
    run = run_stage("train-rm", override(settings, train={"max_steps": 20}, optim={"lr": 0.01}), work)
    sources = {it["source"]: it for it in json.loads(run.dir.evaluation.read_text())["sources"]}
    assert {name: it["pairs"] for name, it in sources.items()} == {tiny.comparisons: 12, other: 12}
    assert sources[tiny.comparisons]["accuracy"] == 1 - sources[other]["accuracy"] == 1.0
    assert sources[other]["low"] == pytest.approx(0.0, abs=1e-12)
    assert sources[other]["high"] == pytest.approx(0.2425, abs=1e-4)  # Wilson's for 0 of 12
    assert "Accuracy by source" in run.dir.report.read_text()


def test_dpo_leaves_the_margins_of_its_last_evaluation(tiny: Tiny, work: Path):
    run = run_stage("dpo", tiny.settings("dpo", data__eval_fraction=0.4), work)
    facts = json.loads(run.dir.evaluation.read_text())
    edges, counts = facts["margin_histogram"]["edges"], facts["margin_histogram"]["margin"]
    assert sum(counts) == facts["num_pairs"]
    mean = column(run.dir, "eval/margin")[-1]
    assert edges[0] - 1e-6 <= mean <= edges[-1] + 1e-6


def test_ppo_keeps_answers_to_the_same_prompts_at_each_evaluation(settings: Settings, work: Path):
    one = override(settings, data={"eval_fraction": 0.4}, ppo={"iterations": 3}, eval={"every_steps": 2})
    run = run_stage("ppo", one, work)
    answers = read_answers(run.dir)
    assert 1 < len(answers) <= 4
    for answer in answers:
        assert [step for step, _, _ in answer.tries] == [0, 2, 4, 6]
        for _, text, score in answer.tries:
            if score >= 0:  # ended by itself
                assert score == pytest.approx(text.count("e") / max(1, len(text)))
    assert answers[0].prompt in run.dir.report.read_text().replace("&#39;", "'")
