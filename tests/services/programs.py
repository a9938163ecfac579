"""Programs of the system that tests need: skip aloud without them, or fail where all are required."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

FALLBACKS = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/git-core")


def need(*names: str) -> None:
    """Go on only if every program is there."""
    absent = [name for name in names if not find(name)]
    if absent:
        absence(f"not installed: {', '.join(absent)}")


def absence(reason: str) -> None:
    """Skip, or fail if `WEIGHTROOM_REQUIRE_ALL=1` says that nothing may be missing."""
    if os.environ.get("WEIGHTROOM_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def find(name: str) -> str | None:
    """Return where a program is, also in folders that are not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path=":".join(FALLBACKS))


def newest_git_lfs() -> Path:
    """Return the newest git-lfs, of which `WEIGHTROOM_TEST_GIT_LFS` tells; the one on PATH is the oldest supported."""
    named = os.environ.get("WEIGHTROOM_TEST_GIT_LFS", "")
    if not named:
        absence("no newest git-lfs; set WEIGHTROOM_TEST_GIT_LFS to what `.ci/newest-git-lfs FOLDER` prints")
    found = Path(named)
    if found.name != "git-lfs" or not os.access(found, os.X_OK):
        absence(f"WEIGHTROOM_TEST_GIT_LFS: {named} is no program called git-lfs")
    return found


class Git:
    """git as a user with a home of their own and no settings from this machine.

    `programs` is a folder that goes before all others on PATH; `seconds` is how long one command may take.
    """

    seconds = 200.0

    def __init__(self, home: Path, *, programs: Path | None = None, **settings: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.environment: Mapping[str, str] = {
            "PATH": os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}",
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@example.org",
            "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@example.org",
            "LC_ALL": "C",
        } | settings

    def __call__(self, *arguments: str, at: Path | None = None, data: bytes | None = None) -> str:
        """Run git; anything but success fails the test with git's own words."""
        done = self.attempt(*arguments, at=at, data=data)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def attempt(
        self, *arguments: str, at: Path | None = None, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run git and return how it ended."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=at or self.home,
            env=dict(self.environment),
            input=data,
            capture_output=True,
            check=False,
            timeout=self.seconds,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def commit(self, work: Path, files: Mapping[str, str | bytes], message: str = "change") -> str:
        """Write files, commit them, return the sha."""
        for name, content in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self("add", "--all", at=work)
        self("commit", "--quiet", "--message", message, at=work)
        return self("rev-parse", "HEAD", at=work)
