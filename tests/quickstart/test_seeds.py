"""Markdown of several seeds, from the files that the table writes."""

import json
from dataclasses import replace

import pytest
from graded import results, row

from rlhf_cli.quickstart import seeds
from rlhf_cli.quickstart.gates import check_gates
from rlhf_cli.quickstart.measure import Comparison
from rlhf_cli.quickstart.table import as_json


def write(path, figures):
    path.write_text(as_json(Comparison([], {}, {}, figures), check_gates(figures)))
    return str(path)


def test_the_table_has_each_seed_and_their_mean(tmp_path, capsys):
    first, second = results(seed=0, gain=0.2), results(seed=1, gain=0.05)
    second = replace(second, sampled=second.sampled | {"ppo": row(0.7, kl=6.0, fact=0.7)})
    files = [write(tmp_path / "0.json", first), write(tmp_path / "1.json", second)]
    assert seeds.main(files) == 0
    heading, sampled, greedy, promises = capsys.readouterr().out.rstrip().split("\n\n")
    assert heading.startswith("Seeds 0 / 1, 512 held-out requests each.")
    assert sampled.splitlines() == [
        "| T=1 | gold of each seed | gold | fact | courtesy | concise | form | RM | KL | words | EOS | wins |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        "| SFT | 0.600 / 0.600 | 0.600 | 0.500 | 0.400 | 1.000 | 0.900 | +0.50 | 0.00 | 8.0 | 1.000 | 0.750 |",
        "| DPO | 0.800 / 0.650 | 0.725 | 0.500 | 0.400 | 1.000 | 0.900 | +0.50 | 2.00 | 8.0 | 1.000 | 0.750 |",
        "| PPO | 0.900 / 0.700 | 0.800 | 0.600 | 0.400 | 1.000 | 0.900 | +0.50 | 5.00 | 8.0 | 1.000 | 0.750 |",
    ]
    assert "| PPO | 0.800 / 0.800 | 0.800 | 0.500 | 0.400 | 1.000 | 0.900 | +0.50 | - |" in greedy
    assert promises.splitlines()[0] == "| promise | seed 0 | seed 1 |"
    assert "| ok: DPO +0.200, PPO +0.300 | MISSED: DPO +0.050, PPO +0.100 |" in promises.splitlines()[2]
    assert len(promises.splitlines()) == 2 + 6


def test_a_written_file_reads_as_its_figures(tmp_path):
    figures = results(rm_accuracy=None)
    write(tmp_path / "a.json", figures)
    assert seeds.read_results(tmp_path / "a.json") == figures


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"seed": 0}), json.dumps({"seed": "x"})])
def test_another_file_is_refused(tmp_path, content, capsys):
    (tmp_path / "a.json").write_text(content)
    assert seeds.main([str(tmp_path / "a.json")]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"--> {tmp_path}/a.json" in captured.err


def test_a_missing_file_is_named(tmp_path, capsys):
    assert seeds.main([str(tmp_path / "a.json")]) == 66
    assert "no figures in" in capsys.readouterr().err
