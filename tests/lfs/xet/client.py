"""The client that users have, in a process of its own: huggingface_hub's functions around hf_xet.

hf_xet reads the environment once, and remembers in its home; a new home is a new machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAM = """
import json, sys
from pathlib import Path

import hf_xet
from huggingface_hub import CommitOperationAdd
from huggingface_hub._commit_api import _upload_xet_files
from huggingface_hub.file_download import xet_get
from huggingface_hub.utils._xet import XetFileData

url, act, *words = json.load(sys.stdin)
if act == "upload":
    files = [CommitOperationAdd(path_in_repo=Path(path).name, path_or_fileobj=path) for path in words]
    _upload_xet_files(
        additions=files, repo_type="model", repo_id="ann/tiny", headers={}, endpoint=url, revision="main"
    )
    print(json.dumps([[info.hash, info.file_size] for info in hf_xet.hash_files(words)]))
else:
    for hash, size, path in words:
        data = XetFileData(hash, f"{url}/api/models/ann/tiny/xet-read-token/main")
        xet_get(incomplete_path=Path(path), xet_file_data=data, headers={}, expected_size=size)
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that was uploaded: its Xet hash as text, and its bytes."""

    hash: str
    size: int


@dataclass(frozen=True, slots=True)
class Client:
    """A client that speaks to the server at `url` and remembers in `home`; `settings` are environment variables."""

    url: str
    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def upload(self, *paths: Path) -> Sequence[Sent]:
        """Upload files in one commit. Raises: RuntimeError, with what a user sees."""
        return [Sent(*each) for each in json.loads(self._run("upload", *map(str, paths)))]

    def download(self, *files: tuple[Sent, Path]) -> None:
        """Download files one by one. Raises: RuntimeError, with what a user sees."""
        self._run("download", *[(sent.hash, sent.size, str(path)) for sent, path in files])

    def _run(self, *words: object) -> str:
        plain = {name: value for name, value in os.environ.items() if not _is_setting(name.upper())}
        homes = {"HF_HOME": str(self.home), "HOME": str(self.home), "HF_XET_CACHE": str(self.home / "xet")}
        environ = plain | homes | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | dict(self.settings)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=environ,
            input=json.dumps([self.url, *words]),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return done.stdout


def _is_setting(name: str) -> bool:
    return name.startswith(("HF_", "XET_")) or name.endswith("_PROXY")
