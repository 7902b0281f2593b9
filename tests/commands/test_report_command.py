"""`rlhf report`: where the page goes, and what is refused."""

from pathlib import Path

import pytest

from rlhf_cli.cli import main
from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.session import StageResult, open_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        with open_run(RunSpec("sft", root, "d", {})) as run:
            run.note_metrics(1, {"loss": 1.0})
            run.finish(StageResult(root, 1, {}))
        run.dir.report.unlink()
    return roots


def test_one_run_gets_its_page_in_its_directory(runs: list[Path], capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(runs[0])]) == 0
    assert capsys.readouterr().out == f"{runs[0] / 'report.html'}\n"
    assert (runs[0] / "report.html").is_file()


def test_several_runs_need_a_place(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", *map(str, runs)]) == 2
    assert "--output" in capsys.readouterr().err
    page = tmp_path / "new" / "both.html"
    assert main(["report", *map(str, runs), "-o", str(page)]) == 0
    assert "two, training" in page.read_text()


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(tmp_path)]) == 66
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 73
