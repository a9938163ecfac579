"""The demo is the promise of the README: every door names the same sha."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.services.programs import need

pytestmark = [pytest.mark.clients, pytest.mark.inference]


def test_every_door_of_the_tour_names_the_commit_that_git_pushed() -> None:
    need("git", "git-lfs")
    done = subprocess.run([sys.executable, "-m", "registry.cli", "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = re.findall(r"weights\S* .*?([0-9a-f]{40})", done.stdout)[:2]
    named = re.findall(
        r"(?:clone elsewhere|snapshot_download|from_pretrained|chat with \S+) +([0-9a-f]{40})", done.stdout
    )
    assert named == [first] * 3 + [second, first, second]
