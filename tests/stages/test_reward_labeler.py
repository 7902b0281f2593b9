"""`labeler: {kind: reward}` on tiny trained models, through the command line."""

import json
import sqlite3
from pathlib import Path

import pytest
from tiny import Tiny

from rlhf_cli.cli import main
from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons
from rlhf_cli.errors import Preempted
from rlhf_cli.preference.store import Store


@pytest.fixture
def place(work: Path, tiny: Tiny, upstream: Path) -> Path:
    Path("collect.yaml").write_text(
        f"""
run_dir: run
prompts: [{{path: {tiny.prompts}}}]
candidates: [{{path: {upstream}/sft, temperature: 1.4}}]
labeler: {{kind: reward, path: {upstream}/train-rm, samples: 4}}
generation: {{max_new_tokens: 24, batch_size: 16}}
round: 2
"""
    )
    return work


def rlhf(*arguments: str) -> int:
    return main(["collect", "--config", "collect.yaml", *arguments])


def rows(run: str = "run") -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(run, "preferences.jsonl").read_text().splitlines()]


def test_each_row_holds_the_best_and_the_worst_of_its_prompt(place: Path):
    assert rlhf() == 0
    with sqlite3.connect("run/collect.db") as db:
        query = """SELECT content, text, score FROM scores JOIN responses AS r ON r.id = response_id
                   JOIN prompts ON prompts.id = prompt_id"""
        scored: dict[str, dict[str, float]] = {}
        for content, text, score in db.execute(query):
            scored.setdefault(json.loads(content), {})[text] = score
        assert db.execute("SELECT COUNT(*) FROM responses").fetchone() == (48,)
    assert len(rows()) > 6
    for row in rows():
        scores = scored[str(row["prompt"])]
        assert row["score_chosen"] == scores[str(row["chosen"])] == max(scores.values())
        assert row["score_rejected"] == scores[str(row["rejected"])] == min(scores.values())
        assert row["round"] == 2
    manifest = json.loads(Path("run/manifest.json").read_text())
    digests = {parent["role"]: parent["digest"] for parent in manifest["parents"]}
    labelers = json.loads(Path("run/export/manifest.json").read_text())["labelers"]
    assert [it["digest"] for it in labelers.values()] == [digests["reward model"]]
    sources = {row["source"]["chosen"]["model_digest"] for row in rows()}  # type: ignore[index,call-overload]
    assert sources == {digests["candidate 0"]}


def test_the_margin_is_read_back_as_the_distance_of_the_scores(place: Path):
    assert rlhf("--set", "export.labels=soft") == 0
    comparisons = read_comparisons([Source(path="run")]).records
    for row, comparison in zip(rows(), comparisons, strict=True):
        gap = float(row["score_chosen"]) - float(row["score_rejected"])  # type: ignore[arg-type]
        assert comparison.margin == pytest.approx(gap)
        assert 0.5 < comparison.p_chosen < 1


def test_a_margin_out_of_reach_is_an_error_with_a_way_out(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--set", "labeler.min_margin=1e6") == 65
    assert "labeler.min_margin" in capsys.readouterr().err


def test_all_pairs_of_two_candidates(place: Path, upstream: Path):
    two = f"[{{path: {upstream}/sft, temperature: 1.4}}, {{path: {upstream}/sft, temperature: 1.2}}]"
    assert (
        rlhf("--set", f"candidates={two}", "--set", "labeler.strategy=all", "--set", "labeler.samples=2") == 0
    )
    prompts = [row["prompt"] for row in rows()]
    assert len(prompts) > len(set(prompts)) > 0


def test_what_leaves_nothing_to_compare_is_refused(place: Path, capsys: pytest.CaptureFixture[str]):
    assert rlhf("--set", "labeler.samples=1") == 78
    assert "leaves nothing to compare" in capsys.readouterr().err
    assert rlhf("--set", "candidates.0.temperature=0") == 78
    assert "are all the same" in capsys.readouterr().err


def test_a_run_that_ends_between_pairs_and_votes_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch):
    note = Store.note

    def stopped(store: Store, key: str, value: str) -> None:
        if key == "pairs":
            raise Preempted("interrupted")
        note(store, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "note", stopped)
        assert rlhf() == 75
    assert rlhf() == 0
    assert len({row["pair_id"] for row in rows()}) == len(rows()) > 6


def test_a_missing_reward_model_is_noticed_before_any_sampling(place: Path):
    assert rlhf("--set", "labeler.path=./nowhere") == 66
    assert not Path("run/collect.db").exists()
