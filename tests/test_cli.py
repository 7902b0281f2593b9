"""The command line as shells see it: streams, exit codes, JSON, and what is not imported."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rlhf_cli import cli
from rlhf_cli.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    MissingInputError,
    Preempted,
    ResourceError,
    RunConflictError,
    UnavailableError,
)
from rlhf_cli.run.session import StageResult

CONFIG = """\
run_dir: {run_dir}
model: {{path: some/model}}
data: {{train: [{{path: rows.jsonl}}]}}
loss: {{on: completion}}
"""
RESULT_KEYS = ["schema", "stage", "status", "exit_code", "run_dir", "artifact", "steps", "metrics", "error"]


class FakeStage:
    """Stands in for rlhf_cli.stages.sft: says a line, prints one where it must not, then does `ending`."""

    def __init__(self):
        self.num_runs = 0
        self.ending = self.succeed

    def run(self, config, run):
        self.num_runs += 1
        run.say("working")
        print("stray output of a library")
        return self.ending(run)

    def succeed(self, run):
        run.dir.model.mkdir(exist_ok=True)
        return StageResult(run.dir.model, 12, {"loss": 0.5, "bad": float("nan")})

    def plan(self, config):
        print("stray output of a library")
        return f"12 steps from {config.model.path}"

    def fail_with(self, error):
        def ending(run):
            raise error

        self.ending = ending


@pytest.fixture
def stage(monkeypatch):
    fake = FakeStage()
    monkeypatch.setitem(sys.modules, "rlhf_cli.stages.sft", SimpleNamespace(run=fake.run, plan=fake.plan))
    return fake


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "sft.yaml"
    path.write_text(CONFIG.format(run_dir=tmp_path / "run"))
    return path


@pytest.fixture
def rlhf(capsys):
    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return SimpleNamespace(code=code, out=streams.out, err=streams.err)

    return call


def parse(done):
    (line,) = done.out.splitlines()
    result = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(result) == RESULT_KEYS
    assert result["schema"] == "rlhf.result/1"
    assert result["exit_code"] == done.code
    return result


def test_stdout_is_the_artifact_and_nothing_else(rlhf, stage, config, tmp_path):
    done = rlhf("sft", "--config", config)
    assert (done.code, done.out) == (0, f"{tmp_path / 'run' / 'model'}\n")
    assert "working" in done.err
    assert "stray output" in done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["argv"] == ["rlhf", "sft", "--config", str(config)]


def test_json_of_success_and_of_the_same_command_again(rlhf, stage, config, tmp_path):
    first = parse(rlhf("sft", "-c", config, "--json"))
    assert first["status"] == "completed"
    assert first["artifact"] == str(tmp_path / "run" / "model")
    assert (first["steps"], first["metrics"], first["error"]) == (12, {"loss": 0.5, "bad": None}, None)
    again = parse(rlhf("sft", "-c", config, "--json"))
    assert again == first | {"status": "already_complete"}
    assert stage.num_runs == 1
    assert rlhf("sft", "-c", config).out == f"{first['artifact']}\n"
    assert rlhf("sft", "-c", config, "--fresh").code == 0
    assert stage.num_runs == 2
    assert (tmp_path / "run.old-1" / "manifest.json").exists()


OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})  # as torch names it


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (DataError("bad row", where="rows.jsonl:3", fix="Mend it."), 65, "DataError"),
        (CheckpointError("torn"), 65, "CheckpointError"),
        (MissingInputError("no model"), 66, "MissingInputError"),
        (UnavailableError("no GPU"), 69, "UnavailableError"),
        (ResourceError("disk full"), 71, "ResourceError"),
        (MemoryError(), 71, "ResourceError"),
        (OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), 71, "ResourceError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 71, "ResourceError"),
        (OSError(28, "No space left on device", "x"), 71, "ResourceError"),
        (RunConflictError("in use"), 73, "RunConflictError"),
        (Preempted("stopped at step 3"), 75, "Preempted"),
        (DivergedError("loss is NaN"), 76, "DivergedError"),
        (ZeroDivisionError("of ours"), 1, "RlhfError"),
        (EOFError(), 1, "RlhfError"),
        (KeyboardInterrupt(), 130, "RlhfError"),
    ],
)
def test_every_failure_has_its_exit_code_text_and_record(rlhf, stage, config, tmp_path, error, code, name):
    stage.fail_with(error)
    done = rlhf("sft", "--config", config, "--json")
    result = parse(done)
    assert done.code == code
    assert result["status"] == ("preempted" if code == 75 else "failed")
    assert result["stage"] == "sft"
    assert result["run_dir"] == str(tmp_path / "run")
    assert result["artifact"] is None
    assert result["error"]["code"] == name
    label = "stopped" if code == 75 else "error"
    assert f"{label}: {result['error']['message']}" in done.err
    assert "Traceback" not in done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["status"], manifest["exit_code"]) == (result["status"], code)
    if name == "DataError":
        assert result["error"] == {
            "code": "DataError", "message": "bad row", "where": "rows.jsonl:3", "fix": "Mend it.",
        }  # fmt: skip


def test_a_bug_leaves_its_traceback_in_the_run(rlhf, stage, config, tmp_path):
    stage.fail_with(ZeroDivisionError("of ours"))
    done = rlhf("sft", "--config", config)
    (crash_file,) = (tmp_path / "run").glob("crash-*.txt")
    assert done.out == ""
    assert f"internal: ZeroDivisionError: of ours\n  --> {crash_file}" in done.err
    assert "in ending" in crash_file.read_text()


def test_a_failed_run_goes_on_and_another_configuration_is_a_conflict(rlhf, stage, config):
    stage.fail_with(Preempted("stopped"))
    assert rlhf("sft", "--config", config).code == 75
    stage.ending = stage.succeed
    done = rlhf("sft", "--config", config, "--set", "optim.lr=3e-5", "--json")
    assert done.code == 73
    assert "optim.lr: 1e-05 -> 3e-05" in parse(done)["error"]["message"]
    assert stage.num_runs == 1
    assert rlhf("sft", "--config", config).code == 0


def test_a_signal_reaches_the_stage_as_a_request(rlhf, stage, config):
    def ending(run):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert run.stop.requested
        raise Preempted("stopped")

    stage.ending = ending
    assert rlhf("sft", "--config", config).code == 75


def test_dry_run_shows_origins_and_the_plan_and_writes_nothing(rlhf, stage, config, tmp_path):
    done = rlhf("sft", "--config", config, "--set", "optim.lr=3e-5", "--dry-run")
    assert done.code == 0
    assert "12 steps from some/model" in done.out
    assert "--set" in next(line for line in done.out.splitlines() if "lr: 3" in line)
    assert "stray" not in done.out
    aside = rlhf("sft", "--config", config, "--dry-run", "--json")
    assert parse(aside)["status"] == "dry_run"
    assert "12 steps" in aside.err
    assert list(tmp_path.iterdir()) == [config]
    assert stage.num_runs == 0


def test_configuration_errors_come_all_at_once_with_records(rlhf, stage, config):
    config.write_text(config.read_text() + "optim: {lrr: 1.0, eps: x}\n")
    done = rlhf("sft", "--config", config, "--json")
    error = parse(done)["error"]
    assert done.code == 78
    assert [problem["key"] for problem in error["problems"]] == ["optim.lrr", "optim.eps"]
    assert error["problems"][0]["where"].startswith(f"{config}:5:")
    missing = rlhf("sft", "--config", "none.yaml", "--json")
    assert (missing.code, parse(missing)["error"]["code"]) == (66, "MissingInputError")


@pytest.mark.parametrize("arguments", [["sft"], ["sftt"], ["sft", "--lr", "1"], ["schema", "sftt"]])
def test_usage_errors_are_2_with_json_too(rlhf, arguments):
    done = rlhf(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert "--help`" in done.err
    assert parse(rlhf(*arguments, "--json"))["error"]["code"] == "UsageError"


def test_check_says_ok_or_that_it_cannot_tell(rlhf, config):
    assert rlhf("check", "-c", config).out == f"ok: {config} is a valid sft config\n"
    config.write_text(config.read_text().replace("loss:", "# loss:"))
    done = rlhf("check", "-c", config)
    assert done.code == 2
    assert "--stage" in done.err
    assert rlhf("check", "-c", config, "--stage", "sft").code == 0


@pytest.mark.parametrize("name", list(cli.STAGES))
def test_schema_and_help_of_each_stage(rlhf, name):
    schema = json.loads(rlhf("schema", name).out)
    assert "run_dir" in schema["properties"]
    page = rlhf(name, "--help")
    assert page.code == 0
    assert f"rlhf {name} --config" in page.out
    for option in ("--set", "--run-dir", "--dry-run", "--fresh", "--json"):
        assert option in page.out


def test_help_is_whole_in_a_narrow_pipe_and_names_every_command(rlhf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for arguments in (["--help"], []):
        page = rlhf(*arguments)
        assert page.code == 0
        text = " ".join(page.out.split())
        for word in [*cli.STAGES, *cli.TOOLS, "Example:", "75 interrupted"]:
            assert word in text
        assert "..." not in text.replace("[ARGS]...", "")
    assert rlhf("--version").out == f"rlhf {cli.rlhf_cli.__version__}\n"


HEAVY = ("torch", "transformers", "datasets", "pandas", "peft", "numpy")
IMPORTS = f"""
import sys
from rlhf_cli.cli import main
main(sys.argv[1:])
sys.stderr.write(" ".join(name for name in {HEAVY} if name in sys.modules) + "|")
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["sft", "--help"],
        ["schema", "ppo"],
        ["check", "--config", "CONFIG"],
        ["sft", "--config", "none.yaml"],
        ["sft", "--config", "CONFIG", "--set", "optim.lrr=1"],
        ["sft", "--config", "CONFIG", "--set", "seed=7"],
        ["sft", "--config", "CONFIG"],
    ],
)
def test_light_commands_import_nothing_heavy(rlhf, stage, config, arguments):
    """The last two meet a completed run: one in conflict with it, one the same again."""
    assert rlhf("sft", "--config", config).code == 0
    words = [str(config) if word == "CONFIG" else word for word in arguments]
    done = subprocess.run([sys.executable, "-c", IMPORTS, *words], capture_output=True, text=True, check=True)
    assert done.stderr.rpartition("\n")[2] == "|"


def test_python_m_is_the_same_program():
    command = [sys.executable, "-m", "rlhf_cli", "sft", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2


def test_collect_is_one_process_whatever_the_launcher(rlhf, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "c.yaml").write_text("{run_dir: c, prompts: [{path: p}], candidates: [{path: m}]}")
    done = rlhf("collect", "--config", tmp_path / "c.yaml", "--json")
    assert done.code == 69
    assert "one process" in parse(done)["error"]["message"]
