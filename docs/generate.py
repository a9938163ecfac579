"""Write the reference pages from the code: settings, commands, routes, errors.

    uv run --extra inference --group test python docs/generate.py

`tests/test_docs.py` fails while a page says something else than the code.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import inspect
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount, Route

import inference.config
import registry.config
from inference import app as sidecar
from inference import cli as sidecar_cli
from registry import app as server
from registry import cli as server_cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py; edit the code instead. -->\n\n"


def settings() -> str:
    """The settings of both programs, from the docstrings of their config's fields."""
    page = "# Settings\n\nEnvironment variables. A command's flag wins over its variable; unset means the default.\n"
    for title, module in (("Registry", registry.config), ("Sidecar", inference.config)):
        page += f"\n## {title}\n\n| variable | default | meaning |\n|---|---|---|\n"
        said = _field_docstrings(Path(inspect.getfile(module)))
        for one in fields(module.Config):
            page += f"| `WEIGHTROOM_{one.name.upper()}` | {_default(one)} | {said.get(one.name, '')} |\n"
    return page


def _field_docstrings(path: Path) -> dict[str, str]:
    tree = ast.parse(path.read_text())
    config = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
    found = {}
    for node, after in zip(config.body, config.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(node.target, ast.Name)
            found[node.target.id] = " ".join(str(after.value.value).split())
    return found


def _default(one: Field[object]) -> str:
    if one.name == "heavy":
        return "cores"
    value = one.default if one.default is not MISSING else ()
    if value is None or value == () or value == "":
        return "–"
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"`{value >> 30} GiB`" if value % (1 << 30) == 0 else f"`{value >> 20} MiB`"
    return f"`{value}`"


def commands() -> str:
    """The command lines of both programs, from their parsers."""
    page = "# Commands\n\nStatus: 0 fine, 1 findings, 2 usage or settings, 3 refused (exists, absent), 75 try again.\n"
    for parser in (server_cli.parser(), sidecar_cli.parser()):
        page += f"\n## {parser.prog}\n"
        for one in _leaves(parser):
            page += (
                f"\n### `{' '.join(one.format_usage().removeprefix('usage: ').split())}`\n\n{one.description or ''}\n"
            )
            page += "".join(f"\n- `{', '.join(flag) or name}`: {text}" for flag, name, text in _options(one)) + "\n"
    return re.sub(r"\n{3,}", "\n\n", page)


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    branches = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    # An act that may be left out leaves a command of its own.
    if not all(action.required for action in branches) or not branches:
        yield parser
    for action in branches:
        for child in action.choices.values():
            yield from _leaves(child)


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], str, str]]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            text = (action.help or "").replace("%(default)s", str(action.default))
            yield list(action.option_strings), str(action.metavar or action.dest), text


def routes() -> str:
    """Every route of both programs with the first line of its endpoint's docstring."""
    page = "# Routes\n\n`{ns}/{name}` is a repo; a revision in a path is percent-encoded if it holds a slash.\n"
    with tempfile.TemporaryDirectory() as folder:
        made = server.build(registry.config.Config(data=Path(folder)))
        page += f"\n## Registry\n\n{_table(made.routes)}"
        asyncio.run(_close(made))
        settings = inference.config.Config(registry="http://127.0.0.1:8000", checkouts=Path(folder))
        other = sidecar.build(settings)
        page += f"\n## Sidecar\n\n{_table(other.routes)}"
        asyncio.run(_close(other))
    return page


async def _close(app: Starlette) -> None:
    """Let go of what an application holds, by the way it does so itself."""
    async with app.router.lifespan_context(app):
        pass


def _table(found: Iterable[object]) -> str:
    rows = {}
    for route in _flat(found):
        methods = " ".join(sorted((route.methods or {"*"}) - {"HEAD"} or {"HEAD"}))
        said = (inspect.getdoc(route.endpoint) or "").split("\n\n")[0].replace("\n", " ")
        rows.setdefault((route.path, methods), f"| {methods} | `{route.path}` | {said} |")
    return "| method | path | does |\n|---|---|---|\n" + "".join(f"{rows[key]}\n" for key in sorted(rows))


def _flat(found: Iterable[object]) -> Iterator[Route]:
    for route in found:
        if isinstance(route, Mount):
            yield from _flat(route.routes)
        elif isinstance(route, Route):
            yield route


def errors() -> str:
    """The error trees, as the rooms draw them."""
    page = "# Errors\n\nWhat may go wrong, in the words of each program; a door says it in its clients' dialect.\n"
    for title, path in (
        ("Registry", "registry/errors.py"),
        ("Bytes", "lfs/errors.py"),
        ("Sidecar", "inference/errors.py"),
    ):
        text = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
        tree = text.split("\n\n")[1]
        page += f"\n## {title}\n\n```\n{tree}\n```\n"
    return page


def pages() -> dict[str, str]:
    """Every generated page by its name."""
    made = {"settings.md": settings(), "commands.md": commands(), "routes.md": routes(), "errors.md": errors()}
    return {name: NOTE + text for name, text in made.items()}


def main() -> None:
    """Write the pages."""
    PAGES.mkdir(exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text)
        print(name, len(text), file=sys.stderr)


if __name__ == "__main__":
    main()
