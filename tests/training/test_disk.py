"""A disk that refuses: training goes on as long as it may, and older checkpoints stay as they are."""

import resource
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tiny import metrics_of
from toy import Straight, Toy, assert_resumes_to, equal, events_of, train

from rlhf_cli.errors import ResourceError
from rlhf_cli.run import faults
from rlhf_cli.run.directory import RunDir


@pytest.fixture(autouse=True)
def _fresh_counts():
    faults._counts.clear()


@pytest.mark.parametrize("number", ["ENOSPC", "EIO"])
@pytest.mark.parametrize(
    "point", ["checkpoint.mkdir", "checkpoint.write", "seal.write", "publish.fsync", "publish.rename"]
)
def test_one_failed_save_is_survived(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch, point: str, number: str
):
    monkeypatch.setenv("RLHF_FAULT", f"{point}:1={number}")
    toy = Toy()
    run = train(tmp_path / "run", toy)
    assert faults._counts[point] > 1, "the fault did not fire"
    failed = [event["step"] for event in events_of(run.dir) if event["kind"] == "checkpoint_failed"]
    assert failed == [4]
    assert "training goes on without a checkpoint of step 4" in run.dir.log.read_text()
    assert equal(toy.state(), straight[0].state())
    assert metrics_of(run.dir) == metrics_of(straight[1])
    assert sorted(path.name for path in run.dir.checkpoints.iterdir()) == ["step-000008", "step-000009"]


def test_the_third_failure_in_a_row_ends_the_run(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch
):
    toy = Toy()
    with monkeypatch.context() as patch:
        patch.setenv(
            "RLHF_FAULT", "checkpoint.write:9+=ENOSPC"
        )  # two checkpoints of four files each are written
        with pytest.raises(ResourceError, match=r"step 5 .*\(3 times in a row\)") as caught:
            train(tmp_path / "run", toy, checkpoint=1)
    assert caught.value.exit_code == 71
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-000001", "step-000002"]
    assert_resumes_to(straight, tmp_path)


def test_the_last_checkpoint_must_be_written(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setenv("RLHF_FAULT", "publish.rename:3+=EIO")  # of steps 4, 8 and 9
        with pytest.raises(ResourceError, match="checkpoint of step 9 could not be written") as caught:
            train(tmp_path / "run", Toy())
    assert caught.value.exit_code == 71
    assert_resumes_to(straight, tmp_path)


@pytest.mark.parametrize("point", ["append.write", "append.fsync"])
@pytest.mark.parametrize("number", range(1, 12))
def test_metrics_wait_for_the_disk(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch, point: str, number: int
):
    """Lines of events may be lost to it, lines of metrics may not."""
    monkeypatch.setenv("RLHF_FAULT", f"{point}:{number}=ENOSPC")
    run = train(tmp_path / "run", Toy())
    assert metrics_of(run.dir) == metrics_of(straight[1])


@pytest.mark.parametrize("action", ["ENOSPC", "EIO"])
def test_every_durable_operation_may_fail_once(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch, action: str
):
    """The run goes on, or ends with 71 and resumes; the end is the same. Every tenth here, all in the soak."""
    with monkeypatch.context() as patch:
        patch.setenv("RLHF_FAULT_RECORD", str(tmp_path / "operations.txt"))
        train(tmp_path / "recorded", Toy())
    total = len((tmp_path / "operations.txt").read_text().splitlines())
    assert total > 100
    for number in range(1, total + 1, 10):
        faults._counts.clear()
        place = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setenv("RLHF_FAULT", f"*:{number}={action}")
            with suppress(ResourceError, OSError):  # known to the command line as exit code 71
                train(place / "run", Toy())
        assert faults._counts["*"] >= number
        assert_resumes_to(straight, place)


def test_a_disk_that_cannot_hold_one_checkpoint_is_refused_at_once(tmp_path: Path):
    toy = Toy()
    toy.model.register_parameter("huge", huge_parameter())
    toy.updater.roles[0].module.register_parameter("huge", toy.model.huge)
    with pytest.raises(ResourceError, match=r"a checkpoint takes [0-9,]+ MiB, and") as caught:
        train(tmp_path / "run", toy)
    assert caught.value.exit_code == 71


def huge_parameter():
    """Make a parameter of 2 EiB that takes no memory."""
    import torch

    return torch.nn.Parameter(torch.zeros(1).expand(2**59))


def test_a_file_that_may_grow_no_further(tmp_path: Path, straight: Straight):
    """A limit of the system, so that the refusal is a real one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
        with pytest.raises((ResourceError, OSError)):
            train(tmp_path / "run", Toy())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert RunDir(tmp_path / "run").root.exists()
