"""The registry installs by itself, without torch, by the commands of its image; and runs from there."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.services.house import free_port
from tests.services.programs import find, need

pytestmark = pytest.mark.clients
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.timeout(280)
def test_the_registry_installs_without_torch_and_serves(tmp_path: Path) -> None:
    need("uv")
    uv, home = str(find("uv")), tmp_path / "venv"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WEIGHTROOM_", "VIRTUAL"))}
    python = str(home / "bin" / "python")
    make = ["venv", "--quiet", "--python", sys.executable, str(home)]
    install = ["pip", "install", "--quiet", "--python", python, str(ROOT)]
    for command in (make, install):
        done = subprocess.run([uv, *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    heavy = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'tests') if u.find_spec(n)])"
    found = subprocess.check_output([python, "-c", heavy], cwd=tmp_path, env=environment, text=True)
    assert found.strip() == "[]"

    port = free_port()
    settings = environment | {"WEIGHTROOM_DATA": str(tmp_path / "data")}
    serve = [str(home / "bin" / "weightroom"), "serve", "--port", str(port)]
    with subprocess.Popen(serve, cwd=tmp_path, env=settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "Stop with Ctrl-C.\n"))
            assert "hf_" in said
            assert "chat" not in said
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
    assert process.returncode == 0
