"""Finding users' functions, and saying what is wrong when they cannot be found."""

from pathlib import Path

import pytest

from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.run.plugins import load_function

REWARDS = """
from dataclasses import dataclass

@dataclass
class Scale:
    factor: float

LIMIT = 3

def scaled(value):
    return Scale(2.5).factor * value
"""


@pytest.fixture
def rewards(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return path


def test_a_file_may_define_dataclasses(rewards: Path):
    assert load_function(f"{rewards}:scaled")(4) == 10.0


def test_a_relative_path_starts_at_the_working_directory(rewards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(rewards.parent)
    assert load_function("rewards.py:scaled")(2) == 5.0


def test_files_of_one_name_are_two_modules(rewards: Path, tmp_path: Path):
    other = tmp_path / "other" / "rewards.py"
    other.parent.mkdir()
    other.write_text("def scaled(value):\n    return -value\n")
    first, second = load_function(f"{rewards}:scaled"), load_function(f"{other}:scaled")
    assert (first(4), second(4)) == (10.0, -4)


def test_a_module_is_imported_by_its_dotted_name():
    assert load_function("os.path:basename")("a/b") == "b"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere.py:f", "nowhere.py is not there"),
        ("no_such_package.rewards:f", "no module no_such_package.rewards"),
        ("os.no_such_part:f", "no module os.no_such_part"),
        ("os.path:no_such_function", "os.path defines no `no_such_function`"),
    ],
)
def test_what_is_not_there_is_named(spec: str, says: str):
    with pytest.raises(MissingInputError, match=says) as caught:
        load_function(spec)
    assert caught.value.where == spec
    assert caught.value.fix


def test_a_constant_is_no_function(rewards: Path):
    with pytest.raises(DataError, match=r"`LIMIT` in .* is a int, not a function"):
        load_function(f"{rewards}:LIMIT")


def test_a_file_that_is_not_python(tmp_path: Path):
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n")
    with pytest.raises(DataError, match="is not Python"):
        load_function(f"{path}:f")


def test_what_the_users_module_cannot_import_is_the_users_to_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "needy_rewards.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="no_such_dependency"):
        load_function("needy_rewards:f")


@pytest.mark.parametrize("body", ["raise KeyError('score')", "import sys; sys.exit(0)", "return 1 / 0"])
def test_what_the_users_function_raises_names_its_line(body: str, tmp_path: Path):
    path = tmp_path / "faulty.py"
    path.write_text(f"def f(value):\n    {body}\n")
    with pytest.raises(DataError, match=r"faulty\.py:f raised") as caught:
        load_function(f"{path}:f")(3)
    assert caught.value.where == f"{path}:2"
    assert body in str(caught.value.fix)


def test_a_file_that_exits_on_import(tmp_path: Path):
    path = tmp_path / "script.py"
    path.write_text("def f(value):\n    return value\nraise SystemExit(0)\n")
    with pytest.raises(DataError, match="raised SystemExit") as caught:
        load_function(f"{path}:f")
    assert caught.value.where == f"{path}:3"
