"""The commands that README and the pages of docs/ show, and what is wrong with one by the program's own parsers."""

import importlib.util
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from rlhf_cli.cli import STAGES, app
from rlhf_cli.config.stages import STAGES as CONFIGS
from scripts.docs.keys import key_rows

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("rlhf", "python", "pip")
OPTION = re.compile(r"--?[a-z][\w-]*")
PLACEHOLDER = re.compile(r"\b(?:[A-Z]{2,}|N)\b|[|\[$]")  # RUN, DIR/sft, sft|dpo, [RUN...], $job


@dataclass(frozen=True)
class Command:
    """A command line as a page shows it; `in_block` where it stands in a block of shell, not in a sentence."""

    page: str
    line: int
    text: str
    in_block: bool

    @property
    def words(self) -> list[str]:
        """Split as a shell does, without what stands before the program: variables and `time`."""
        words = shlex.split(self.text)
        while words and ("=" in words[0] or words[0] == "time"):
            words.pop(0)
        return words

    @property
    def is_pattern(self) -> bool:
        """Tell whether it has placeholders instead of names."""
        return bool(PLACEHOLDER.search(self.text.replace("'rlhf-cli[", "'rlhf-cli")))

    @property
    def is_mention(self) -> bool:
        """Tell whether it only names a command or a script in a sentence."""
        bare = all(re.fullmatch(r"[a-z-]+", word) for word in self.words[1:])
        return not self.in_block and not self.is_pattern and bare


def commands() -> list[Command]:
    """List the commands of all pages in their order."""
    return [command for page in PAGES for command in commands_of(page)]


def commands_of(page: Path) -> Iterator[Command]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    blank = re.sub(r"```.*?```", lambda block: re.sub(r"[^\n]", " ", block[0]), text, flags=re.DOTALL)
    for block in re.finditer(r"```sh\n(.*?)```", text, re.DOTALL):
        first = text.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines(), first):
            for part in re.sub(r"\s#.*|\s&\s*(#.*)?$", "", line).split(" && "):
                if part := re.sub(r"^\w+=\$\((.*)\)$", r"\1", part.strip()).partition(" | ")[
                    0
                ]:  # name=$(command | tail)
                    yield Command(name, number, part, in_block=True)
    for code in re.finditer(r"`([^`]+)`", blank):
        words = code[1].replace("\\|", "|").split()
        if words and (words[0] in PROGRAMS or words[0].startswith("scripts/") or words[:1] == ["time"]):
            yield Command(name, blank.count("\n", 0, code.start()) + 1, " ".join(words), in_block=False)


def yaml_blocks_of(page: Path) -> list[str]:
    """List the blocks of YAML on a page."""
    return re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def faults_in(command: Command) -> list[str]:
    """Say what the program it calls would not accept: unknown commands, options, keys, modules, scripts."""
    words = command.words
    match words:
        case ["cd", folder]:
            return [] if folder == "zoo" else [f"no folder {folder}"]
        case ["rlhf", *rest]:
            return _faults_of_rlhf(rest, is_pattern=command.is_pattern or command.is_mention)
        case ["torchrun", "--nproc-per-node", number, "$(which", "rlhf)", *rest] if number.isdigit():
            return _faults_of_rlhf(rest, is_pattern=command.is_pattern)
        case ["python", "-m", module, *rest]:
            spec = importlib.util.find_spec(module)
            return _unknown_options(rest, [Path(str(spec.origin))]) if spec else [f"no module {module}"]
        case ["pip", "install", what]:
            return _faults_of_pip(what)
        case [script, *rest] if script.startswith("scripts/"):
            path = ROOT / script
            if not path.exists() or (rest and path.is_dir()):
                return [f"no program {script}"]
            if not rest:
                return []
            near = path.parent.glob("*.py") if path.parent.name != "scripts" else []
            return _unknown_options(rest, [path, *near])
        case ["zoo/run.sh"]:
            return []
    return ["a program that no test knows"]


def _faults_of_rlhf(words: Sequence[str], *, is_pattern: bool) -> list[str]:
    """Walk to the command, look up each option, and parse the whole line where it is no pattern."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    path = []
    while rest and isinstance(command, typer.core.TyperGroup):
        if rest[0] not in command.commands:
            return [f"no command {' '.join([*path, rest[0]])}"]
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    faults = [
        f"no option {word}" for word in rest if OPTION.fullmatch(word) and word not in {*known, "--help"}
    ]
    if not is_pattern and not faults:
        try:
            command.make_context(" ".join(path), list(rest))
        except typer.TyperException as error:
            faults.append(error.format_message())
    return faults + (_unknown_keys(path[0], rest) if path and path[0] in STAGES else [])


def _unknown_keys(stage: str, words: Sequence[str]) -> list[str]:
    keys = {re.sub(r"\(.*?\)|\[\]", "", key) for key, _, _ in key_rows(CONFIGS[stage])}
    given = [after.partition("=")[0] for word, after in pairwise(words) if word == "--set"]
    return [f"no key {key}" for key in given if re.sub(r"\.\d+", "", key) not in keys]


def _unknown_options(words: Sequence[str], sources: Sequence[Path]) -> list[str]:
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    return [f"no option {word}" for word in words if OPTION.fullmatch(word) and word not in text]


def _faults_of_pip(what: str) -> list[str]:
    if what == ".":
        return []
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    name, _, extra = what.rstrip("]").partition("[")
    known = f'name = "{name}"' in project and (
        not extra or re.search(rf"^{extra} = \[", project, re.MULTILINE)
    )
    return [] if known else [f"no package {what}"]
