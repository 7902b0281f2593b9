"""scripts/iterated_dpo on tiny models: every round on its own prompts, from the policy of the round before."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tiny import Tiny, run_stage

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_two_rounds_build_on_each_other_and_are_not_repeated(tiny: Tiny, tmp_path: Path):
    changes = {"train__max_steps": 40, "train__batch_size": 12, "optim__lr": 0.01}
    run_stage("sft", tiny.settings("sft", **changes), tmp_path)
    changes = {"model__path": str(tmp_path / "sft"), "train__max_steps": 4}
    run_stage("train-rm", tiny.settings("train-rm", **changes), tmp_path)
    collect = tmp_path / "collect.yaml"
    collect.write_text(
        """
run_dir: x
prompts: [{path: x}]
candidates: [{path: x, temperature: 1.3}]
labeler: {kind: reward, path: x, samples: 4}
generation: {max_new_tokens: 24}
"""
    )
    settings = tiny.settings("dpo", reference="x", train__max_steps=2, run_dir="x")
    (tmp_path / "dpo.yaml").write_text(json.dumps(settings))
    command = [
        str(ROOT / "scripts" / "iterated_dpo"),
        *(
            "--policy",
            str(tmp_path / "sft"),
            "--reward",
            str(tmp_path / "train-rm"),
            "--prompts",
            tiny.prompts,
        ),
        *("--rounds", "2", "--out", str(tmp_path / "out")),
        *("--collect", str(collect), "--dpo", str(tmp_path / "dpo.yaml")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    assert first.stdout == f"{tmp_path}/out/round-2/dpo\n"
    prompts = [(tmp_path / "out" / f"round-{r}" / "prompts.jsonl").read_text().splitlines() for r in (1, 2)]
    assert [len(lines) for lines in prompts] == [6, 6]
    assert sorted(prompts[0] + prompts[1]) == sorted(Path(tiny.prompts).read_text().splitlines())
    digests = {
        name: parents(tmp_path / "out" / name) for name in ("round-1/dpo", "round-2/collect", "round-2/dpo")
    }
    assert digests["round-2/collect"]["candidate 0"] == digests["round-2/dpo"]["model"]
    assert digests["round-2/dpo"]["reference"] == digests["round-1/dpo"]["model"]
    rows = (tmp_path / "out" / "round-2" / "collect" / "preferences.jsonl").read_text().splitlines()
    assert {json.loads(row)["round"] for row in rows} == {2}

    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 0
    assert second.stderr.count("already complete") == 4


def parents(run: Path) -> dict[str, str]:
    manifest = json.loads((run / "manifest.json").read_text())
    return {parent["role"]: parent["digest"] for parent in manifest["parents"]}


def test_what_is_missing_or_unknown_is_said():
    script = str(ROOT / "scripts" / "iterated_dpo")
    for arguments, code, message in (
        (["--policy", "a", "--reward", "b"], 2, "--prompts is missing"),
        (["--policy", "a", "--reward", "b", "--prompts", "nowhere"], 66, "no file nowhere"),
        (["--rounds"], 2, "--rounds needs a value"),
        (["--what"], 2, "unknown argument --what"),
    ):
        done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
