"""The size and manners every file keeps: short files and functions, no guessing, no pickle, no prints."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 300, 60, 9

PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLING_NAMES = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle"}
BROAD = {"Exception", "BaseException"}

# Character classes keep these patterns from matching their own text.
PRIVATE = {
    "a path of one machine": r"(?<![\w.}/])/(?:wor[k]|roo[t]|opt/(?:pyp[i]|wheel[s]))(?![\w-])",
    "a package registry": r"pyp[i]\.org|pythonhoste[d]|download\.pytorc[h]|registry\.npmj[s]",
}


def fault_in_node(node: ast.AST) -> str | None:
    """Name the house rule that one syntax node breaks, or None."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return fault_in_function(node)
        case ast.Name(id="hasattr" | "getattr" as name):
            return f"{name}: give the thing a type instead"
        case ast.ExceptHandler(type=caught) if (
            caught is None or BROAD & names_in(caught)
        ) and not raises_again(node):
            return "a broad except hides bugs; name the error"
        case ast.Call(func=ast.Attribute(attr="suppress"), args=caught) if any(
            BROAD & names_in(c) for c in caught
        ):
            return "a broad suppress hides bugs; name the error"
        case ast.Import(names=names) if PICKLERS & {alias.name.partition(".")[0] for alias in names}:
            return "pickle runs code from the file it loads"
        case ast.ImportFrom(module=str(module), names=names):
            imported = {f"{module}.{alias.name}" for alias in names}
            if module.partition(".")[0] in PICKLERS or imported & PICKLING_NAMES:
                return "pickle runs code from the file it loads"
        case ast.Attribute() if ast.unparse(node) in PICKLING_NAMES:
            return "pickle runs code from the file it loads"
    return None


def fault_in_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    parameters = len(names) - (names[:1] in (["self"], ["cls"]))
    if lines > MAX_FUNCTION_LINES:
        return f"{node.name} has {lines} lines, {MAX_FUNCTION_LINES} at most"
    if parameters > MAX_PARAMETERS:
        return f"{node.name} has {parameters} parameters, {MAX_PARAMETERS} at most"
    return None


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler cleans up and ends with a bare `raise`: that one hides nothing."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def names_in(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def faults_in(text: str, *, may_print: bool) -> Iterator[str]:
    """Yield `line: fault` for every house rule that a Python source breaks."""
    if (lines := len(text.splitlines())) > MAX_FILE_LINES:
        yield f"1: {lines} lines, {MAX_FILE_LINES} at most"
    for node in ast.walk(ast.parse(text)):
        fault = fault_in_node(node)
        if isinstance(node, ast.Call) and names_in(node.func) == {"print"} and not may_print:
            fault = "print: use the run's `say`, or write to stdout where the result goes"
        if fault:
            yield f"{node.lineno}: {fault}"


def repository_files() -> list[Path]:
    """List what git tracks or would track; without git, every file outside hidden and run folders."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        tops = [top for top in ROOT.iterdir() if top.name != "runs" and not top.name.startswith(".")]
        return [path for top in tops for path in [top, *top.rglob("*")] if path.is_file()]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def private_names_in(text: str) -> Iterator[str]:
    for kind, pattern in PRIVATE.items():
        for found in re.finditer(pattern, text):
            yield f"{text.count(chr(10), 0, found.start()) + 1}: {found.group()} is {kind}"


def test_python_files_keep_the_house_rules():
    faults = []
    for path in repository_files():
        if path.suffix == ".py":
            inside = path.is_relative_to(ROOT / "rlhf_cli")
            faults += [
                f"{path.relative_to(ROOT)}:{f}" for f in faults_in(path.read_text(), may_print=not inside)
            ]
    assert not faults, "\n".join(faults)


def test_no_file_names_a_private_place():
    faults = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        faults += [f"{path.relative_to(ROOT)}:{fault}" for fault in private_names_in(text)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "text",
    [
        "x\n" * 301,
        "def f():\n" + "    x\n" * 60,
        "def f(a, b, c, d, e, *, f, g, h, i, j): ...",
        "def f(self, a, b, c, d, e, *, f, g, h, i, j): ...",
        "getattr(a, 'b')",
        "try:\n    x\nexcept:\n    y",
        "try:\n    x\nexcept (OSError, Exception):\n    raise DataError",
        "with contextlib.suppress(Exception):\n    x",
        "import pickle",
        "from torch import load",
        "torch.load(path)",
        "def f():\n    import joblib.memory",
        "print(1)",
    ],
)
def test_each_rule_can_fail(text: str):
    assert len(list(faults_in(text, may_print=False))) == 1


@pytest.mark.parametrize(
    "text",
    ["x\n" * 300, "def f():\n" + "    x\n" * 59, "try:\n    x\nexcept BaseException:\n    y\n    raise"],
)
def test_the_limits_themselves_are_allowed(text: str):
    assert not list(faults_in(text, may_print=False))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cd " + "/".join(["", "work", "main"]), True),
        ("'" + "/" + "root'", True),
        ("files." + "python" + "hosted" + ".org", True),
        ("$root/scripts, the network/, roots/a, ./work/b, host.org/root/", False),
    ],
)
def test_private_places_are_found(text: str, found: bool):
    assert bool(list(private_names_in(text))) is found
