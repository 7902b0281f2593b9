"""From a configured path to a model: runs, directories, hub ids, and what is said when there is none."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from rlhf_cli.config.sections import Model
from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.models.load import load_vocabulary
from rlhf_cli.models.locate import Located, locate
from rlhf_cli.run.directory import digest_dir


def run_of(tmp_path: Path, status: str) -> Path:
    manifest = {"status": status, "argv": ["rlhf", "sft", "--config", "sft.yaml"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def model_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_completed_run(tmp_path: Path) -> None:
    run, model = run_of(tmp_path, "completed"), model_in(tmp_path / "model")
    assert locate(str(run)) == Located(str(model), digest_dir(model), run)


@pytest.mark.parametrize("status", ["running", "preempted", "failed"])
def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path, status: str) -> None:
    model_in(run_of(tmp_path, status) / "model")
    with pytest.raises(DataError, match=f"is {status}, not completed") as caught:
        locate(str(tmp_path))
    assert "rlhf sft --config sft.yaml" in str(caught.value)


def test_a_run_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="makes no model"):
        locate(str(run_of(tmp_path, "completed")))


def test_a_plain_directory(tmp_path: Path) -> None:
    model = model_in(tmp_path / "model")
    found = locate(str(model))
    assert (found.name, found.run) == (str(model), None)
    (model / "config.json").write_text('{"changed": 1}')
    assert locate(str(model)).digest != found.digest


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="neither a run"):
        locate(str(tmp_path))


@pytest.mark.parametrize("path", ["/no/where", "./owner/name", "../name", "~/name", "runs/hh/sft", "name"])
def test_a_path_that_is_not_there(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match=f"no model at {path}"):
        locate(path)


def test_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name") == Located("owner/name", "owner/name@main", None)
    assert locate("owner/name", "v1").digest == "owner/name@v1"


def test_a_hub_id_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("owner/name is not a local folder\nand many more lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(MissingInputError, match=r"no model owner/name: owner/name is not a local folder\n"):
        load_vocabulary(Model(path="owner/name"))
