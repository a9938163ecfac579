"""Programs built upon huggingface_hub, set up by HF_ENDPOINT alone: transformers and datasets against a whole house."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.tiny import make_chat_model
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = [pytest.mark.clients, pytest.mark.inference]
_numbers = itertools.count()

PUSH = """
import sys, json
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
first = model.push_to_hub(sys.argv[2])
second = tokenizer.push_to_hub(sys.argv[2])
print(json.dumps([first.oid, second.oid]))
"""
LOAD = """
import sys, json, torch
from pathlib import Path
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer
kwargs = {"revision": sys.argv[2]} if len(sys.argv) > 2 else {}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], **kwargs)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], **kwargs)
sha = Path(try_to_load_from_cache(sys.argv[1], "model.safetensors", **kwargs)).parent.name
total = sum(float(p.double().sum()) for p in model.parameters())
print(json.dumps([sha, round(total, 6), tokenizer("Hello")["input_ids"]]))
"""
DATASET = """
import sys, json
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train")
print(json.dumps([len(rows), rows[0]]))
"""


def python(house: House, folder: Path, code: str, *arguments: str) -> object:
    """Run a user's lines with nothing set but endpoint and token; return the JSON that they print last."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_HOME": str(folder / f"hf{next(_numbers)}"),
        "HF_ENDPOINT": house.url,
        "HF_TOKEN": house.token,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_transformers_pushes_a_model_and_loads_it_by_name_and_by_sha(house: House, git: Git, tmp_path: Path) -> None:
    make_chat_model(tmp_path / "model")
    repo = f"ann/pushed-{next(_numbers)}-{house.port}"
    _, last = python(house, tmp_path, PUSH, str(tmp_path / "model"), repo)  # type: ignore[misc]
    sha, total, ids = python(house, tmp_path, LOAD, repo)  # type: ignore[misc]
    assert sha == last == git("ls-remote", house.remote(repo), "refs/heads/main").split("\t")[0]
    again = python(house, tmp_path, LOAD, repo, sha)
    assert again == [sha, total, ids]


def test_what_git_pushes_datasets_loads(house: House, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    name = f"table-{next(_numbers)}-{house.port}"
    python(
        house,
        tmp_path,
        "import sys, json; from huggingface_hub import HfApi;"
        "print(json.dumps(HfApi().create_repo(sys.argv[1], repo_type='dataset').repo_id))",
        f"ann/{name}",
    )
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", house.remote(f"datasets/ann/{name}"), "data", at=tmp_path)
    lines = "".join(json.dumps({"text": f"row {n}", "n": n}) + "\n" for n in range(50))
    git.commit(tmp_path / "data", {"train.jsonl": lines, "README.md": "---\nlicense: mit\n---\n# Table\n"})
    git("push", "-q", at=tmp_path / "data")
    assert python(house, tmp_path, DATASET, f"ann/{name}") == [50, {"text": "row 0", "n": 0}]
