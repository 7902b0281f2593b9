"""The life of a run: claims, conflicts, outcomes, and what the manifest says of them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cli.errors import DataError, DivergedError, Preempted, RunConflictError
from rlhf_cli.run.claim import RunSpec, find_completed
from rlhf_cli.run.session import StageResult, open_run


def spec_in(root: Path, **changes) -> RunSpec:
    plain = {"stage": "sft", "digest": "d1", "tree": {"seed": 3}, "argv": ["rlhf", "sft"]}
    return RunSpec(
        root=root, **(plain | {"source_text": "seed: 3\n", "resolved_text": "seed: 3 # x\n"} | changes)
    )


def manifest_of(root: Path):
    return json.loads((root / "manifest.json").read_text())


def fail_with(error: BaseException, spec: RunSpec):
    with open_run(spec) as run:
        run.set_extra("kept", 1)
        run.finish(StageResult(run.dir.model, 1, {}))
        raise error


def refuse(spec: RunSpec, match: str, **options) -> RunConflictError:
    with pytest.raises(RunConflictError, match=match) as caught, open_run(spec, **options):
        pytest.fail("the run opened")
    return caught.value


def complete(spec: RunSpec):
    with open_run(spec) as run:
        run.dir.model.mkdir(exist_ok=True)
        run.finish(StageResult(run.dir.model, 7, {"loss": 0.5}))


def test_a_completed_run_is_recorded_and_found(tmp_path):
    spec = spec_in(tmp_path / "deep" / "run")
    assert find_completed(spec) is None
    with open_run(spec) as run:
        assert manifest_of(spec.root)["status"] == "running"
        run.add_parent("model", "runs/base", "abc")
        run.add_parent("model", "runs/base", "def")
        run.set_extra("reward", {"mean": 0.1, "std": 2.0})
        run.checkpointed(4)
        assert manifest_of(spec.root)["last_checkpoint_step"] == 4
        run.dir.model.mkdir()
        run.finish(StageResult(run.dir.model, 7, {"loss": 0.5, "bad": float("nan")}))
    record = manifest_of(spec.root)
    assert record["schema"] == "rlhf.run/1"
    assert (record["stage"], record["status"], record["exit_code"]) == ("sft", "completed", 0)
    assert record["result"].pop("digest") == hashlib.sha256(b"").hexdigest()  # of a folder without files
    assert record["result"] == {"artifact": "model", "steps": 7, "metrics": {"loss": 0.5, "bad": None}}
    assert record["parents"] == [{"role": "model", "path": "runs/base", "digest": "def"}]
    assert record["extra"] == {"reward": {"mean": 0.1, "std": 2.0}}
    assert record["seed"] == 3
    assert record["versions"]["rlhf-cli"]
    assert record["attempts"][0]["pid"] == os.getpid()
    assert (spec.root / "config.yaml").read_text() == "seed: 3\n"
    assert (spec.root / "config.resolved.yaml").read_text() == "seed: 3 # x\n"
    assert (spec.root / "report.html").exists()
    kinds = [json.loads(line)["kind"] for line in (spec.root / "events.jsonl").read_text().splitlines()]
    assert kinds == ["started", "checkpointed", "ended"]

    assert find_completed(spec).result.steps == 7
    assert find_completed(spec_in(spec.root, digest="d2")) is None
    (spec.root / "model").rmdir()
    assert find_completed(spec) is None


@pytest.mark.parametrize(
    ("error", "status", "exit_code", "crashes"),
    [
        (Preempted("stopped"), "preempted", 75, 0),
        (DataError("bad row"), "failed", 65, 0),
        (DivergedError("NaN"), "failed", 76, 0),
        (KeyboardInterrupt(), "failed", 130, 0),
        (MemoryError(), "failed", 71, 1),
        (ZeroDivisionError("ours"), "failed", 1, 1),
    ],
)
def test_every_end_is_recorded(tmp_path, error, status, exit_code, crashes):
    with pytest.raises(type(error)):
        fail_with(error, spec_in(tmp_path))
    record = manifest_of(tmp_path)
    assert (record["status"], record["exit_code"], record["result"]) == (status, exit_code, None)
    assert record["attempts"][0]["status"] == status
    crash_files = list(tmp_path.glob("crash-*.txt"))
    assert len(crash_files) == crashes
    if crashes:
        assert type(error).__name__ in crash_files[0].read_text()


def test_the_same_run_goes_on_with_a_new_attempt(tmp_path):
    with pytest.raises(Preempted):
        fail_with(Preempted("stopped"), spec_in(tmp_path))
    with open_run(spec_in(tmp_path)) as run:
        run.resumed(40)
        run.finish(StageResult(tmp_path, 80, {}))
    record = manifest_of(tmp_path)
    assert [attempt["status"] for attempt in record["attempts"]] == ["preempted", "completed"]
    assert [attempt["resumed_from_step"] for attempt in record["attempts"]] == [None, 40]
    assert record["extra"] == {"kept": 1}
    assert "resumed from step 40" in (tmp_path / "log.txt").read_text()


DIE_INSIDE = """
import os, sys
from pathlib import Path
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.session import open_run
with open_run(RunSpec("sft", Path(sys.argv[1]), "d1", {})):
    os._exit(9)
"""


def test_a_killed_attempt_frees_the_lock_and_is_called_killed(tmp_path):
    done = subprocess.run([sys.executable, "-c", DIE_INSIDE, str(tmp_path)], check=False)
    assert done.returncode == 9
    complete(spec_in(tmp_path))
    assert [attempt["status"] for attempt in manifest_of(tmp_path)["attempts"]] == ["killed", "completed"]


def test_a_run_in_use_names_the_process(tmp_path):
    with open_run(spec_in(tmp_path)):
        for fresh in (False, True):
            refuse(spec_in(tmp_path), f"in use by pid {os.getpid()} on ", fresh=fresh)
    complete(spec_in(tmp_path))


def test_another_configuration_is_refused_with_its_keys(tmp_path):
    complete(spec_in(tmp_path))
    before = (tmp_path / "manifest.json").read_bytes()

    def differing_keys(old, new):
        return [f"seed: {old['seed']} -> {new['seed']}"]

    other = spec_in(tmp_path, digest="d2", tree={"seed": 4})
    error = refuse(other, "seed: 3 -> 4", differing_keys=differing_keys)
    assert "--fresh" in error.fix
    refuse(spec_in(tmp_path, stage="dpo"), "`sft`, not of `dpo`")
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_fresh_renames_the_old_run_aside(tmp_path):
    root = tmp_path / "run"
    complete(spec_in(root))
    for digest in ("d2", "d3"):
        with open_run(spec_in(root, digest=digest), fresh=True) as run:
            assert not run.dir.model.exists()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run", "run.old-1", "run.old-2"]
    assert manifest_of(tmp_path / "run.old-1")["status"] == "completed"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_that_is_no_run_is_left_alone(tmp_path, fresh):
    (tmp_path / "thesis.tex").write_text("years of work")
    refuse(spec_in(tmp_path), r"not a run: it holds thesis\.tex", fresh=fresh)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_what_a_crash_before_the_first_manifest_leaves_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").write_text("pid 1")
    (tmp_path / ".manifest.json.tmp-0123abcd").write_text("{")
    complete(spec_in(tmp_path))


def test_a_file_in_the_way_and_a_broken_manifest_are_conflicts(tmp_path):
    (tmp_path / "file").write_text("")
    refuse(spec_in(tmp_path / "file"), "is a file")
    refuse(spec_in(tmp_path / "file" / "run"), "cannot be written")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{"schema": "other/1"}')
    refuse(spec_in(tmp_path / "run"), "not the manifest of a run")
    with open_run(spec_in(tmp_path / "run"), fresh=True):
        pass
