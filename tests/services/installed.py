"""Clients of other versions and another language, installed once into the user's cache and found there from then on.

    ~/.cache/weightroom-tests/<digest of what is in it>/

Without the program that installs, or without a registry of packages, tests skip aloud; see `programs.absence`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.services.programs import absence, find, need

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weightroom-tests"
# Two of these are what it cuts and hashes with; the versions are those that the tests ran with.
JAVASCRIPT = (
    "@huggingface/hub@2.17.5",
    "@huggingface/xetchunk-wasm@0.2.0",
    "@huggingface/blake3-jit@0.0.2",
    "gearhash-jit@1.0.2",
)


def python(*requirements: str) -> Path:
    """Return a Python that has these packages and those that they need, none of ours."""
    need("uv")

    def install(folder: Path) -> None:
        _run("uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        _run("uv", "pip", "install", "--quiet", "--python", str(folder / "venv" / "bin" / "python"), *requirements)

    return _kept((sys.base_prefix, *requirements), install) / "venv" / "bin" / "python"


def javascript() -> Path:
    """Return a folder in which node finds @huggingface/hub."""
    need("node", "npm")

    def install(folder: Path) -> None:
        _run("npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", *JAVASCRIPT)

    return _kept(JAVASCRIPT, install)


def _kept(content: tuple[str, ...], install: Callable[[Path], None]) -> Path:
    """Find what was installed, or install it: under another name, so that nobody finds a half."""
    folder = CACHE / hashlib.sha256(" ".join(content).encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    coming = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        install(coming)
        os.rename(coming, folder)
    except OSError:
        # Another worker was faster, and its folder is as good.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(coming, ignore_errors=True)
    return folder


def _run(program: str, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [str(find(program)), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    if done.returncode:
        absence(f"{program} cannot install {arguments[-1]}: {done.stderr[-500:]}")
