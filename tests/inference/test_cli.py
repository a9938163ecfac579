"""The command line: settings told at once, exit codes, one line when it accepts, an end that is asked for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from inference.cli import main

COMMAND = [sys.executable, "-m", "inference.cli", "serve"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings of ours."""
    for name in [name for name in os.environ if name.startswith("WEIGHTROOM_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("bare")
def test_wrong_settings_are_told_together_and_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "many", "--device", "tpu"]) == 2
    told = capsys.readouterr().err
    for name in ("REGISTRY", "SIDECAR_PORT", "DEVICE"):
        assert f"WEIGHTROOM_{name}:" in told


@pytest.mark.usefixtures("bare")
def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WEIGHTROOM_SIDECAR_PORT", "many")
    monkeypatch.setenv("WEIGHTROOM_REGISTRY", "nonsense")
    assert main(["serve", "--registry", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.count("WEIGHTROOM_") == 1


@pytest.mark.usefixtures("bare")
def test_a_taken_port_is_told_at_once_and_exits_with_75(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--registry", "http://127.0.0.1:1", "--port", port]) == 75
    assert port in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom inference import cli\n"
        "try: cli.main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "--shared-store" in done.stdout


def test_listening_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom inference.app import build\nfrom inference.config import Config\n"
        "build(Config(registry='http://127.0.0.1:9', checkouts=Path('checkouts')))\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]"), done.stderr


def test_a_gpu_that_is_insisted_on_and_absent_is_told_at_once(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTROOM_")}
    arguments = ["--registry", "http://127.0.0.1:9", "--port", "0", "--device", "cuda"]
    hidden = environment | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*COMMAND, *arguments], env=hidden, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "cuda" in done.stderr


def test_it_says_where_it_listens_and_ends_when_asked(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTROOM_")}
    arguments = ["--registry", "http://127.0.0.1:9", "--port", "0", "--device", "cpu", "--model", "acme/none"]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/health").status_code == 200
        ready = httpx.get(f"{url}/ready")
        assert (ready.status_code, ready.json()["waiting_for"]) == (503, ["acme/none"])
        away = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer hf_x"})
        assert (away.status_code, away.json()["error"]["code"]) == (503, "registry_unavailable")
        assert away.headers["retry-after"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "cannot load acme/none yet" in log
