"""The table of losses over seeds, from files that `rounds` writes."""

import dataclasses
import json
from pathlib import Path

import pytest
from graded import row

from rlhf_cli.quickstart import losses


def write(path: Path, golds: dict[str, float]) -> str:
    tree = {
        name: {
            "sampled": dataclasses.asdict(row(gold, kl=2.0)),
            "greedy": dataclasses.asdict(row(gold + 0.1, kl=None)),
        }
        for name, gold in golds.items()
    }
    path.write_text(json.dumps(tree))
    return str(path)


def test_each_policy_has_the_gold_of_every_seed_and_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = [
        write(tmp_path / "0.json", {"sft": 0.6, "a/losses/ipo": 0.8}),
        write(tmp_path / "1.json", {"sft": 0.5, "b/losses/ipo": 0.9}),
    ]
    assert losses.main(files) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| `sft` | 0.600 / 0.500 | 0.550 | 0.700 / 0.600 | 0.650 | 2.00 | 8.0 |",
        "| `ipo` | 0.800 / 0.900 | 0.850 | 0.900 / 1.000 | 0.950 | 2.00 | 8.0 |",
    ]


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = write(tmp_path / "0.json", {"sft": 0.6, "ipo": 0.8})
    assert losses.main([whole, write(tmp_path / "1.json", {"sft": 0.6})]) == 65
    assert "no figures of ipo" in capsys.readouterr().err
    (tmp_path / "2.json").write_text('{"sft": 1}')
    assert losses.main([str(tmp_path / "2.json")]) == 65
    assert losses.main([str(tmp_path / "3.json")]) == 66
    assert capsys.readouterr().out == ""
