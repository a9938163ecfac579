"""`weightroom doctor`: says whether this house is fit to open, and what its bucket enforces."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from lfs.store import Enforced
from registry.commands import checks
from registry.commands.opening import FINDINGS, OK, standing
from registry.config import Config
from registry.upkeep.probing import Probing

MEANINGS: Mapping[Enforced, str] = {
    "content_sha256": "clients upload straight to the bucket: it refuses bytes that are not the signed ones",
    "checksum_sha256": "clients upload straight to the bucket: it refuses bytes without the signed checksum",
    "none": "uploads go through the server, which hashes them; set WEIGHTROOM_UPLOAD=staging to let the bucket take "
    "them unproven and have them read back",
}


def doctor(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look at the house, or at its storage alone."""
    return _storage(asked, environ) if asked.what == "storage" else checks.doctor(asked, environ)


def _storage(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Say what the shelf enforces; also told to a running server, from its next start or day on."""
    config = Config.from_environ(environ)
    with standing(config) as shelves:
        if not config.storage_url.startswith("s3:"):
            print("the storage is a folder: every upload goes through the server, which hashes it")
            return OK
        key = config.s3_access_key or ""
        found = Probing(database=shelves.database, store=shelves.store, url=config.storage_url, access_key=key).ask()
    if asked.json:
        print(json.dumps({"enforces": found.enforces, "details": dict(found.details)}))
    else:
        print("\n".join(f"{name}: {told}" for name, told in found.details.items()))
        print(f"enforces {found.enforces}: {MEANINGS[found.enforces]}")
    return FINDINGS if found.details.get("tampered signature", "").startswith("kept") else OK
