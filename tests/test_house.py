"""The house keeps its own rules: floors, room sizes, names, what may be imported where, and docs in step with code."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("registry", "lfs", "inference", "migrations")
ROOMS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LONGEST_ROOM = 400
LONGEST_FUNCTION = 40
BARRED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
# Heavy or optional: these alone may be imported inside a function.
LATE_IMPORTS = {"boto3", "botocore", "hf_xet", "torch", "transformers", "onnxruntime", "redis", "optimum", "accelerate"}
ENVIRONMENT_READERS = {"registry/cli.py", "inference/cli.py", "migrations/env.py"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    return "" if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-6000:]


def _tool(name: str, *arguments: str) -> str:
    return _run(str(Path(sys.executable).parent / name), *arguments)


def test_imports_run_downhill() -> None:
    assert _tool("lint-imports", "--no-cache") == ""


def test_every_room_has_a_floor() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = [layer for contract in contracts for layer in contract.get("layers", [])]
    placed = {room.strip(" ()") for layer in layers for room in layer.split("|")}
    rooms = {".".join(path.relative_to(ROOT).with_suffix("").parts[:2]) for path in ROOMS if path.name != "__init__.py"}
    assert {room for room in rooms if not room.startswith("migrations")} <= placed


def test_code_is_formatted_and_linted() -> None:
    assert _tool("ruff", "check") + _tool("ruff", "format", "--check") == ""


def test_types_hold() -> None:
    assert _tool("mypy") == ""


@pytest.mark.parametrize("path", ROOMS + TESTS, ids=_name)
def test_a_room_is_small_and_well_named(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_ROOM, "split it: a second noun is a second file"
    assert not BARRED_NAMES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_a_room_says_what_it_is_and_keeps_its_functions_short(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, "a module opens with one sentence"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":")), "the first line is a sentence"
    if path.name == "__init__.py":
        assert len(tree.body) == 1, "no logic in __init__.py"
    long = [f"{node.name}: {_length(node)} lines" for node in _functions(tree) if _length(node) > LONGEST_FUNCTION]
    assert not long


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [node.name for node in _public(tree) if ast.get_docstring(node) is None]
    assert not bare


@pytest.mark.parametrize("path", ROOMS, ids=_name)
def test_imports_stand_at_the_top_and_heavy_ones_in_their_rooms(path: Path) -> None:
    name = _name(path)
    late = {module for function in _functions(ast.parse(path.read_text())) for module in _imports(function)}
    assert {module.split(".")[0] for module in late} <= LATE_IMPORTS
    everywhere = {module.split(".")[0] for module in _imports(ast.parse(path.read_text()))}
    if not name.startswith("registry/git/"):
        assert "dulwich" not in everywhere
    if not name.startswith("inference/engines/"):
        assert "torch" not in everywhere
        if not name.startswith("inference/render"):
            assert "transformers" not in everywhere
    if name not in ENVIRONMENT_READERS:
        assert "os.environ" not in path.read_text(), "the environment is read at the top and passed as values"


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    is_doc = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    documented = (first.end_lineno or 0) - first.lineno + 1 if is_doc else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - documented


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                        yield inner


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
