"""The page: complete, self-contained, escaped; one run, several runs, and what is missing."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_runs import HOSTILE, answers_text, make_run, ppo_rows

from rlhf_cli.errors import MissingInputError
from rlhf_cli.run.report.page import render, write_report
from rlhf_cli.run.report.source import read_runs, short_names


class Tags(HTMLParser):
    """Counts tags and gathers texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_a_finished_run_writes_its_page_with_everything_escaped(tmp_path: Path):
    rows = [{"step": step, "loss": 3.0 / step, HOSTILE: 1.0} for step in (1, 2, 3)]
    make_run(tmp_path / "run", "sft", rows)
    page = Tags((tmp_path / "run" / "report.html").read_text())
    for text in ("completed", "0.25", HOSTILE, "12,345", "1200 read, 1199 kept, 1 rejected", "some/model"):
        assert any(text in found for found in page.texts), text
    assert not {"script", "img", "iframe", "object", "embed"} & set(page.tags)
    loading = {name: value for name, value in page.attributes if name in ("src", "href", "data")}
    assert all(str(value).startswith(("#", "data:")) for value in loading.values())
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "http" not in "".join(page.texts)


def test_no_run_no_report(tmp_path: Path):
    assert write_report(tmp_path) is None
    with pytest.raises(MissingInputError, match="no run here"):
        read_runs([tmp_path])


def test_a_run_that_recorded_nothing_still_has_a_page(tmp_path: Path):
    make_run(tmp_path / "run", "dpo", [], answers="torn {", evaluation="torn {")
    assert "No metrics are recorded" in (tmp_path / "run" / "report.html").read_text()


def test_training_and_held_out_share_a_chart_and_the_table_holds_both(tmp_path: Path):
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval/loss": 2.5}]
    make_run(tmp_path / "run", "sft", rows)
    page = Tags((tmp_path / "run" / "report.html").read_text())
    assert page.texts.count("Loss") == 1
    table = [text for text in page.texts[page.texts.index("Numbers") :] if text]
    assert table[1:9] == ["step", "training", "held out", "1", "3", "2", "2", "2.5"]


def test_answers_over_time_are_listed_once_per_step(tmp_path: Path):
    make_run(tmp_path / "run", "ppo", ppo_rows(), answers=answers_text())
    texts = Tags((tmp_path / "run" / "report.html").read_text()).texts
    assert [texts.count(f"answer at {step}") for step in (0, 8)] == [1, 1]
    assert "Reward against KL" in texts


def test_histograms_and_calibration_of_a_reward_model(tmp_path: Path):
    evaluation = {
        "score_histogram": {"edges": [0.0, 1.0, 2.0], "chosen": [1.0, 3.0], "rejected": [3.0, 1.0]},
        "calibration": [{"count": 4, "confidence": 0.6, "accuracy": 0.55}],
    }
    make_run(tmp_path / "run", "train-rm", [{"step": 1, "loss": 0.7}], evaluation=evaluation)
    page = Tags((tmp_path / "run" / "report.html").read_text())
    assert {"Score histogram", "Calibration", "chosen", "rejected"} <= set(page.texts)
    numbers = page.texts[page.texts.index("Calibration") :]
    assert numbers[numbers.index("confidence", 4) :][: len(numbers)].count("0.55") >= 1


def test_accuracy_by_source_is_a_table(tmp_path: Path):
    source = {"source": "votes/ana.jsonl", "pairs": 40, "accuracy": 0.75, "low": 0.598, "high": 0.858}
    make_run(tmp_path / "run", "train-rm", [], evaluation={"rows": "held out", "sources": [source]})
    texts = Tags((tmp_path / "run" / "report.html").read_text()).texts
    place = texts.index("Accuracy by source, held out pairs")
    cells = [text for text in texts[place:] if text]
    assert cells[5:9] == ["votes/ana.jsonl", "40", "0.75", "0.598 to 0.858"]


def test_several_runs_of_a_stage_lie_on_top_of_each_other(tmp_path: Path):
    for seed in (0, 1):
        make_run(tmp_path / f"seed-{seed}" / "ppo", "ppo", ppo_rows())
    make_run(tmp_path / "sft", "sft", [{"step": 1, "loss": 1.0}])
    roots = [tmp_path / "seed-0" / "ppo", tmp_path / "seed-1" / "ppo", tmp_path / "sft"]
    page = Tags(render(read_runs(roots)))
    assert page.texts.count("Reward") == 1
    assert {"seed-0/ppo, training", "seed-1/ppo, training"} <= set(page.texts)
    assert page.texts.count("Loss") == 1


def test_names_are_as_long_as_it_takes():
    assert short_names([Path("/a/b/ppo"), Path("/a/c/dpo")]) == ["ppo", "dpo"]
    assert short_names([Path("/a/x/ppo"), Path("/b/x/ppo")]) == ["a/x/ppo", "b/x/ppo"]
    assert short_names([Path("/a/ppo"), Path("/a/ppo")]) == ["ppo", "ppo"]


def test_the_chain_of_origin_is_followed_through_runs_and_ends_in_a_circle(tmp_path: Path):
    sft = make_run(tmp_path / "sft", "sft", [])
    ppo = make_run(tmp_path / "ppo", "ppo", [])
    ppo.add_parent("model", tmp_path / "sft" / "model", "a" * 64)
    sft.add_parent("odd", tmp_path / "ppo", "b" * 64)
    (run,) = read_runs([tmp_path / "ppo"])
    chain = [(link.depth, link.role, link.stage) for link in run.ancestors]
    assert chain == [(0, "model", ""), (0, "model", "sft"), (1, "model", ""), (1, "odd", "ppo")]


def test_a_fault_is_said_once_recorded_and_shown_where_it_belongs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [row | {"kl": 30.0 * row["step"]} for row in ppo_rows()]
    run = make_run(tmp_path / "run", "ppo", rows)
    assert capsys.readouterr().err.count("doctor: KL runs away") == 1
    events = [json.loads(line) for line in run.dir.events.read_text().splitlines()]
    (event,) = [event for event in events if event["kind"] == "doctor"]
    assert (event["rule"], event["step"], event["metric"]) == ("kl_runs_away", 24, "kl")
    page = run.dir.report.read_text()
    assert page.count("KL runs away") == 2  # under Health, and under its chart
