"""`rlhf init`: a project to start from, made from the recipes this package ships.

The recipes are the files of `configs/`; here they only lose what belongs to that place: the folder names in front
of their paths. Data of the project's own comes with them.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import rlhf_cli
from rlhf_cli.config.schema import json_schema
from rlhf_cli.errors import RunConflictError
from rlhf_cli.tools.slurm import Resources, Step, chain_files, write_scripts

_RECIPES = Path(rlhf_cli.__file__).parent / "configs"
_PAGES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Template:
    """A project to start from: its stages in order, and the files beside them, each with what it is."""

    summary: str
    steps: tuple[Step, ...]
    extras: Mapping[str, str]


TEMPLATES: dict[str, Template] = {
    "quickstart": Template(
        "The whole chain on an example that generates itself: offline, on a CPU, in minutes.",
        (
            Step("sft", "base.yaml"),
            Step("sft", "sft.yaml"),
            Step("collect", "collect.yaml"),
            Step("train-rm", "train_rm.yaml"),
            Step("ppo", "ppo.yaml"),
            Step("dpo", "dpo.yaml"),
        ),
        {"data/": "signs at a small zoo and questions about them"},
    ),
    "hh": Template(
        "The whole chain on HH-RLHF, for one GPU.",
        (
            Step("sft", "sft.yaml"),
            Step("collect", "collect.yaml", by_hand=True),
            Step("train-rm", "train_rm.yaml"),
            Step("ppo", "ppo.yaml"),
            Step("dpo", "dpo.yaml"),
        ),
        {"_common.yaml": "what the training stages share"},
    ),
    "sentiment": Template(
        "PPO with a reward that is a Python function: movie reviews that praise.",
        (Step("sft", "sft.yaml"), Step("ppo", "ppo.yaml")),
        {"reward.py": "the reward", "openings.jsonl": "what reviews begin with"},
    ),
    "constitution": Template(
        "Feedback without people: a chat model judges by principles that you write down.",
        (
            Step("collect", "collect.yaml"),
            Step("train-rm", "train_rm.yaml"),
            Step("ppo", "ppo.yaml"),
            Step("dpo", "dpo.yaml"),
        ),
        {"prompts.jsonl": "prompts to try it with"},
    ),
}


def make_project(folder: Path, name: str, write_data: Callable[[Path], None] | None) -> None:
    """Write the project `name` of TEMPLATES into `folder`; `write_data` fills its `data/`.

    Raises RunConflictError where `folder` holds something already.
    """
    _claim(folder)
    template = TEMPLATES[name]
    for source in sorted((_RECIPES / name).iterdir()):
        if source.name in template.extras or source.name in {step.file for step in template.steps}:
            text = source.read_text(encoding="utf-8")
            (folder / source.name).write_text(at_home(text, name), encoding="utf-8")
    _write_schemas(folder / "schema", template)
    _write_pages(folder, name, template)
    if write_data:
        write_data(folder / "data")


def _claim(folder: Path) -> None:
    fix = "Choose another directory."
    try:
        if folder.exists() and any(folder.iterdir()):
            raise RunConflictError(f"{folder} is not empty", where=str(folder), fix=fix)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made: {error.strerror}"
        raise RunConflictError(message, where=str(folder), fix=fix) from error


def at_home(text: str, name: str) -> str:
    """Rewrite a recipe so that its paths start from the project's folder."""
    changes = (
        ("$schema=../schema/", "$schema=schema/"),
        ("${env:QUICKSTART:-runs/quickstart}/data/", "data/"),
        ("${env:QUICKSTART:-runs/quickstart}/", "runs/"),
        ("${env:RUNS:-runs}/" + name + "/", "runs/"),
        (f"runs/{name}/", "runs/"),
        ("scripts/quickstart, or: ", "./run.sh, or: "),
        (f"configs/{name}/", ""),
    )
    for old, new in changes:
        text = text.replace(old, new)
    return text


def _write_schemas(folder: Path, template: Template) -> None:
    folder.mkdir()
    for stage in {step.stage for step in template.steps}:
        text = json.dumps(json_schema(stage), indent=2) + "\n"
        (folder / f"{stage}.schema.json").write_text(text, encoding="utf-8")


def _write_pages(folder: Path, name: str, template: Template) -> None:
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(loader=FileSystemLoader(_PAGES), trim_blocks=True, keep_trailing_newline=True)
    facts = {
        "name": folder.absolute().name,
        "template": name,
        "summary": template.summary,
        "steps": template.steps,
        "extras": list(template.extras.items()),
    }
    for page in ("README.md", "run.sh"):
        text = pages.get_template(f"{page}.jinja").render(facts)
        (folder / page).write_text(text, encoding="utf-8")
    (folder / "run.sh").chmod(0o755)
    write_scripts(chain_files(folder / "slurm", template.steps, Resources(), root=folder))
    shutil.copy(_PAGES / "gitignore.txt", folder / ".gitignore")
