"""The child that renders chat templates: reads one JSON line, writes one, holds no secret and imports no model code.

    parent ── {"template", "variables"} ──▶ child
           ◀── {"text"} or {"error"} ─────

The parent (`inference/rendering.py`) gives each answer two seconds and kills the child that takes longer. What the
sandbox of Jinja2 does not stop (long loops, huge strings, huge powers) is stopped by that and by the memory limit.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import NoReturn

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 256 * 2**20
"""Address space of the child, in bytes."""
MAX_OUTPUT = 2**20
"""Characters that a template may render."""


class Refused(Exception):
    """The template itself refused the messages, through `raise_exception`."""


class GenerationBlock(Extension):
    """Renders `{% generation %}…{% endgeneration %}` as its content; the marks only matter to training."""

    tags = {"generation"}  # noqa: RUF012  # Jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Keep the block's statements and drop its marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> Environment:
    """Build the environment that chat templates are written for.

    Source: transformers' chat templating guide: trimmed blocks, loop controls, `raise_exception`, `strftime_now`,
    and a `tojson` that leaves text readable.
    """
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, GenerationBlock]
    )
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _refuse
    env.globals["strftime_now"] = _now
    return env


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _refuse(message: object) -> NoReturn:
    raise Refused(str(message))


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005  # templates print the date of the place they run in


def answer(compiled: Callable[[str], Template], line: bytes) -> dict[str, str]:
    """Render one request; every way to fail is an `error` text, never an exception."""
    try:
        asked = json.loads(line)
        pieces, size = [], 0
        for piece in compiled(asked["template"]).generate(**asked["variables"]):
            size += len(piece)
            if size > MAX_OUTPUT:
                return {"error": f"the chat template rendered more than {MAX_OUTPUT} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces).encode("utf-8", "replace").decode()}
    except Refused as refusal:
        return {"error": f"the chat template refused the messages: {str(refusal)[:500]}"}
    except MemoryError:
        return {"error": f"the chat template used more than {MEMORY >> 20} MiB"}
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        return {"error": f"the chat template failed: {type(error).__name__}: {str(error)[:500]}"}


def serve(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
    """Answer lines until there are no more."""
    compiled = lru_cache(maxsize=32)(environment().from_string)
    while line := read():
        write(json.dumps(answer(compiled, line)).encode() + b"\n")


def main() -> None:
    """Limit this process, then serve its standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    out = sys.stdout.buffer

    def write(line: bytes) -> None:
        out.write(line)
        out.flush()

    serve(sys.stdin.buffer.readline, write)


if __name__ == "__main__":
    main()
