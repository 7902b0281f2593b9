"""Gold scores of any policies: the same figures as the table's, in any number of rows."""

import json
from pathlib import Path

import pytest

from rlhf_cli.quickstart import rounds
from rlhf_cli.quickstart.measure import compare


def test_figures_are_those_of_the_table_and_rows_follow_the_policies(
    example: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rounds, "_MAX_NEW_TOKENS", 7)  # as the example's PPO run says
    policies = [str(example / "dpo"), str(example / "ppo")]
    arguments = ["--root", str(example), "--seed", "3", "--json", str(tmp_path / "figures.json"), *policies]
    assert rounds.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["sft", *policies]
    figures = json.loads((tmp_path / "figures.json").read_text())
    known = compare(example).results
    for name, path in (("sft", "sft"), ("dpo", policies[0]), ("ppo", policies[1])):
        assert figures[path]["sampled"]["gold"] == pytest.approx(known.sampled[name].gold)
        assert figures[path]["greedy"]["reward"] == pytest.approx(known.greedy[name].reward)


def test_a_missing_policy_is_an_error_with_its_code(example: Path, capsys: pytest.CaptureFixture[str]):
    assert rounds.main(["--root", str(example), "./nowhere"]) == 66
    assert "no model at ./nowhere" in capsys.readouterr().err
