"""The floor table of the package, held against every import in it: lazy and TYPE_CHECKING ones too."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "rlhf_cli"

# A part imports parts on lower floors and itself, never another part of its own floor.
FLOORS = {
    "errors": 0, "records": 0, "redaction": 0,
    "config": 1, "run": 1, "algo": 1,
    "data": 2, "models": 2,
    "rollout": 3, "reward": 3, "preference": 3, "training": 3,
    "stages": 4, "tools": 4, "quickstart": 4,
    "commands": 5,
    "cli": 6,
    "__main__": 7,
    "chaos": 8,
}  # fmt: skip

STAGES = {f"{PACKAGE}.stages.{name}" for name in ("sft", "collect", "train_rm", "ppo", "dpo")}

# Imports that cost seconds. Floors 0 and 1 and the command line never pay for them at start-up.
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "peft",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "tokenizers",
}
LIGHT_FLOORS = {0, 1, 5, 6, 7}
MAY_IMPORT_TORCH = {"algo"}


class Import(NamedTuple):
    source: str
    target: str
    line: int
    at_start: bool  # executed when the module is imported

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def part(module: str) -> str:
    """Name the entry of FLOORS that `module` belongs to; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def is_own(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def find_modules() -> dict[str, Path]:
    """Map dotted module names to files; a package is named by its `__init__.py`."""
    modules = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(module: str, text: str, known: set[str]) -> list[Import]:
    """List the imports of one module; `from a import b` counts as `a.b` where that is a module."""
    tree = ast.parse(text)
    lazy = {id(node) for outer in ast.walk(tree) if is_deferred(outer) for node in ast.walk(outer)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide the floor they reach"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in known else str(node.module) for name in names]
        else:
            continue
        found += [
            Import(module, target, node.lineno, id(node) not in lazy) for target in dict.fromkeys(targets)
        ]
    return found


def is_deferred(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def floor_fault(found: Import) -> str | None:
    """Say which rule of the house an import breaks, or None."""
    source, target = part(found.source), part(found.target)
    if not is_own(found.target):
        return third_party_fault(found)
    if target == "":
        return None  # the package itself holds only the version
    if source == "algo" and target != "algo":
        return "algo imports torch, the standard library and itself"
    if source == target:
        return "a stage imports another stage" if found.target in STAGES else None
    if FLOORS[target] == FLOORS[source]:
        return "parts on one floor never import each other"
    return "imports only go down" if FLOORS[target] > FLOORS[source] else None


def third_party_fault(found: Import) -> str | None:
    source, library = part(found.source), found.target.partition(".")[0]
    if source == "algo" and library != "torch" and library not in sys.stdlib_module_names:
        return "algo imports torch, the standard library and itself"
    heavy = library in HEAVY and not (library == "torch" and source in MAY_IMPORT_TORCH)
    if heavy and found.at_start and FLOORS[source] in LIGHT_FLOORS:
        return "floors 0, 1 and the command line import heavy libraries inside functions only"
    return None


MODULES = find_modules()
IMPORTS = [
    found for name, path in MODULES.items() for found in imports_of(name, path.read_text(), set(MODULES))
]


def test_every_module_has_a_floor():
    assert {part(module) for module in MODULES} - {""} <= set(FLOORS)


def test_imports_keep_to_the_floors():
    faults = [f"{found}: {fault}" for found in IMPORTS if (fault := floor_fault(found))]
    assert not faults, "\n".join(faults)


def test_package_files_import_nothing():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert not [str(found) for found in IMPORTS if found.source in packages]


def test_no_import_cycle():
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if is_own(found.target) and found.target != found.source:
            graph[found.source].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("data.files", "from rlhf_cli.training.loop import fit", "only go down"),
        ("data.files", "from rlhf_cli import models", "never import each other"),
        ("errors", "import rlhf_cli.records", "never import each other"),
        ("stages.ppo", "def f():\n    from rlhf_cli.stages.dpo import run", "another stage"),
        ("quickstart.world", "from rlhf_cli.stages.sft import run", "never import each other"),
        ("tools.chat", "from rlhf_cli.stages.sft import run", "never import each other"),
        ("algo.gae", "from rlhf_cli.errors import DataError", "algo imports torch"),
        ("algo.gae", "import numpy", "algo imports torch"),
        ("config.load", "import torch.nn", "inside functions only"),
        ("cli", "try:\n    import datasets\nexcept ImportError:\n    pass", "inside functions only"),
        (
            "run.session",
            "if TYPE_CHECKING:\n    from rlhf_cli.config.load import LoadedConfig",
            "never import each",
        ),
        ("run.session", "def f():\n    import torch", None),
        ("algo.gae", "import torch\nimport math\nfrom rlhf_cli.algo.tensors import mean", None),
        ("stages.ppo", "from rlhf_cli.training import loop\nfrom rlhf_cli import __version__", None),
    ],
)
def test_the_rules_can_fail(module: str, line: str, fault: str | None):
    known = {f"{PACKAGE}.{name}" for name in FLOORS} | STAGES
    faults = [floor_fault(found) for found in imports_of(f"{PACKAGE}.{module}", line, known)]
    assert (fault or "") in " ".join(filter(None, faults))
    assert any(faults) == (fault is not None)
