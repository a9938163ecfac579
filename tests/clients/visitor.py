"""Somebody with huggingface_hub installed and nothing set but the endpoint and a token; or with Xet turned off, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

BEGIN = """
import json, os, sys, time
from huggingface_hub import *
from huggingface_hub import errors
api = HfApi()
def told(kind, call, *args, **more):
    try:
        call(*args, **more)
    except kind as error:
        return [error.response.status_code, str(error.server_message)]
    raise AssertionError(f"{call.__name__} was not refused")
def content(path, repo, **more):
    return open(api.hf_hub_download(repo, path, **more), "rb").read()
out = {}
"""


def visit(
    code: str,
    *,
    endpoint: str,
    token: str,
    home: Path,
    seconds: float = 120,
    xet: bool = True,
    python: str = sys.executable,
) -> dict[str, object]:
    """Run lines of Python that leave their findings in `out`; return those. `python` may have another version of it."""
    environment = surroundings(endpoint=endpoint, token=token, home=home, xet=xet)
    script = BEGIN + textwrap.dedent(code) + "\nprint(json.dumps(out))\n"
    done = subprocess.run(
        [python, "-c", script], env=environment, cwd=home, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def surroundings(*, endpoint: str, token: str, home: Path, xet: bool) -> dict[str, str]:
    """Return the environment of a visitor with a home of their own."""
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return environment if xet else environment | {"HF_HUB_DISABLE_XET": "1"}
