"""Somebody with @huggingface/hub and node, and nothing set but the address of the hub and a token."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

from tests.services import installed
from tests.services.programs import find

BEGIN = """
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import * as hub from "@huggingface/hub";
const [hubUrl, accessToken, repo] = process.argv.slice(1);
const at = { hubUrl, accessToken, repo };
const sum = (data) => createHash("sha256").update(Buffer.from(data)).digest("hex");
const summed = async (blob) => sum(await blob.arrayBuffer());
const out = {};
"""


def visit(code: str, *, endpoint: str, token: str, repo: str, home: Path, seconds: float = 120) -> dict[str, object]:
    """Run lines of JavaScript that leave their findings in `out`; return those. Paths begin at `home`."""
    packages = installed.javascript()
    lines = f'{BEGIN}process.chdir("{home}");\n{textwrap.dedent(code)}\nconsole.log(JSON.stringify(out));'
    command = [str(find("node")), "--input-type=module", "--eval", lines, endpoint, token, repo]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    # Packages are looked for from where it starts.
    done = subprocess.run(
        command, env=environment, cwd=packages, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
