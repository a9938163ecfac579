"""The JSON that Hub clients read: info bodies, list items, entries of trees, refs and commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from registry.access import RepoRow
from registry.cards import Facts
from registry.errors import BadBody
from registry.frontmatter import Json
from registry.git.history import Commit
from registry.git.snapshot import Ref
from registry.git.tree import Entry
from registry.names import RepoType

XET = "xetEnabled"
"""Whether large files go by Xet: asked by huggingface_hub 0.30 to 0.35 before each upload, and answered by the door."""
_SHARED = frozenset(
    {"author", "cardData", "createdAt", "disabled", "lastModified", "likes", "private", "resourceGroup", "sha"}
    | {"siblings", "tags", "trendingScore", "usedStorage", XET}
)
_WITH_DOWNLOADS = ("downloads", "downloadsAllTime", "gated")
EXPANDABLE: Mapping[RepoType, frozenset[str]] = {
    "model": frozenset(
        {"baseModels", "childrenModelCount", "config", "evalResults", "gguf", "inference", "inferenceProviderMapping"}
        | {"library_name", "mask_token", "model-index", "pipeline_tag", "safetensors", "spaces", "transformersInfo"}
        | {"widgetData", *_SHARED, *_WITH_DOWNLOADS}
    ),
    "dataset": frozenset({"citation", "description", "mainSize", "paperswithcode_id", *_SHARED, *_WITH_DOWNLOADS}),
    "space": frozenset({"datasets", "models", "region", "runtime", "sdk", "subdomain", *_SHARED}),
}
"""What clients may name in `expand`."""
_INFO = ("author", "sha", "lastModified", "private", "gated", "disabled", "createdAt", "downloads", "likes", "tags")
INFO: Mapping[RepoType, tuple[str, ...]] = {
    "model": (
        *(*_INFO, "usedStorage", "pipeline_tag", "library_name", "cardData", "config", "transformersInfo"),
        *("safetensors", "model-index", "baseModels", "spaces"),
    ),
    "dataset": (*_INFO, "usedStorage", "cardData", "description", "mainSize"),
    "space": (*_INFO, "usedStorage", "cardData", "sdk", "subdomain", "runtime"),
}
"""What an info answer has when nothing is named; siblings come last and are added by the door."""
LISTED: Mapping[RepoType, tuple[str, ...]] = {
    "model": (*_INFO, "trendingScore", "pipeline_tag", "library_name"),
    "dataset": (*_INFO, "trendingScore", "description"),
    "space": (*_INFO, "trendingScore", "sdk"),
}
_AUTO_MODELS = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "image-classification": "AutoModelForImageClassification",
    "automatic-speech-recognition": "AutoModelForSpeechSeq2Seq",
}


def body(found: object) -> bytes:
    """Write JSON as the doors send it: compact, UTF-8."""
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def moment(at: datetime) -> str:
    """Write a time as ISO 8601 with milliseconds and `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def expanded(kind: RepoType, names: Iterable[str]) -> list[str]:
    """Check the names that a client wrote in `expand`.

    Raises: BadBody (one that does not exist).
    """
    found = list(dict.fromkeys(names))
    unknown = [name for name in found if name not in EXPANDABLE[kind]]
    if unknown:
        allowed = ", ".join(sorted(EXPANDABLE[kind]))
        raise BadBody(f'"expand" must be one of [{allowed}], not {unknown[0][:80]!r}.')
    return found


def described(repo: RepoRow, sha: str | None, facts: Facts, names: Collection[str]) -> dict[str, Json]:
    """Make the object of a repo with the named properties; those that have no value are left out."""
    found: dict[str, Json] = {"_id": format(repo.id, "024x"), "id": repo.repo_id.full}
    if repo.type == "model":
        found["modelId"] = repo.repo_id.full
    for name in names:
        value = sha if name == "sha" else _property(name, repo, facts)
        if value is not None:
            found[name] = value
    return found


def sibling(found: Entry) -> dict[str, Json]:
    """Make the item of a file in an info answer with `blobs`."""
    made: dict[str, Json] = {"rfilename": text(found.path), "size": found.size, "blobId": found.sha}
    if found.pointer is not None:
        made["lfs"] = {"sha256": found.pointer.oid, "size": found.size, "pointerSize": found.git_size}
    return made


def entry(found: Entry, last: Commit | None = None) -> dict[str, Json]:
    """Make the item of a tree or paths-info answer."""
    made: dict[str, Json] = {
        "type": "directory" if found.folder else "file",
        "oid": found.sha,
        "size": 0 if found.folder else found.size,
    }
    if found.pointer is not None:
        made["lfs"] = {"oid": found.pointer.oid, "size": found.size, "pointerSize": found.git_size}
    made["path"] = text(found.path)
    if last is not None:
        made["lastCommit"] = {"id": last.sha, "title": last.title, "date": moment(last.date)}
    return made


def commit(found: Commit, *, formatted: bool) -> dict[str, Json]:
    """Make the item of a commit list; `formatted` adds the texts with markup escaped."""
    made: dict[str, Json] = {
        "id": found.sha,
        "title": found.title,
        "message": found.body,
        "date": moment(found.date),
        "authors": [{"user": found.author, "avatar": ""}],
    }
    if formatted:
        made["formatted"] = {"title": _escaped(found.title), "message": _escaped(found.body)}
    return made


def refs(shown: Mapping[bytes, Ref], *, pulls: bool) -> dict[str, Json]:
    """Sort refs into the four lists that clients expect."""
    kinds = {"branches": b"refs/heads/", "tags": b"refs/tags/", "converts": b"refs/convert/"}
    found: dict[str, Json] = {key: _refs_below(shown, prefix) for key, prefix in kinds.items()}
    found["pullRequests"] = _refs_below(shown, b"refs/pr/") if pulls else []
    return found


def text(raw: bytes) -> str:
    """Show a path or ref name; one that is not UTF-8 loses its odd bytes."""
    return raw.decode("utf-8", "replace")


def _refs_below(shown: Mapping[bytes, Ref], prefix: bytes) -> list[Json]:
    return [
        {"name": text(name[len(prefix) :]), "ref": text(name), "targetCommit": ref.peeled or ref.target}
        for name, ref in shown.items()
        if name.startswith(prefix)
    ]


def _property(name: str, repo: RepoRow, facts: Facts) -> Json:
    make = _PROPERTIES.get(name)
    return None if make is None else make(repo, facts)


def _safetensors(repo: RepoRow, facts: Facts) -> Json:
    return {"parameters": dict(facts.tensors), "total": facts.parameters} if facts.tensors else None


def _transformers(repo: RepoRow, facts: Facts) -> Json:
    if facts.library != "transformers":
        return None
    found: dict[str, Json] = {"auto_model": _AUTO_MODELS.get(facts.task, "AutoModel")}
    return found | ({"pipeline_tag": facts.task} if facts.task else {})


def _base_models(repo: RepoRow, facts: Facts) -> Json:
    said = facts.card.get("base_model")
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        return None
    relation = facts.card.get("base_model_relation") or "finetune"
    return {"relation": relation, "models": [{"id": name} for name in names]}


def _subdomain(repo: RepoRow, facts: Facts) -> Json:
    return "".join(c if c.isalnum() else "-" for c in f"{repo.namespace}-{repo.name}".lower())


# Only what this server knows: of the rest it says nothing.
_PROPERTIES: dict[str, Callable[[RepoRow, Facts], Any]] = {
    "author": lambda repo, facts: repo.namespace,
    "baseModels": _base_models,
    "cardData": lambda repo, facts: dict(facts.card),
    "config": lambda repo, facts: dict(facts.config),
    "createdAt": lambda repo, facts: moment(repo.created_at),
    "description": lambda repo, facts: repo.description,
    "disabled": lambda repo, facts: False,
    "downloads": lambda repo, facts: repo.downloads,
    "downloadsAllTime": lambda repo, facts: repo.downloads,
    "evalResults": lambda repo, facts: [],
    "gated": lambda repo, facts: repo.gated or False,
    "inferenceProviderMapping": lambda repo, facts: [],
    "lastModified": lambda repo, facts: moment(repo.updated_at),
    "library_name": lambda repo, facts: facts.library or None,
    "likes": lambda repo, facts: repo.likes,
    "mainSize": lambda repo, facts: repo.lfs_bytes + repo.git_bytes,
    "model-index": lambda repo, facts: facts.card.get("model-index"),
    "paperswithcode_id": lambda repo, facts: facts.card.get("paperswithcode_id"),
    "pipeline_tag": lambda repo, facts: facts.task or None,
    "private": lambda repo, facts: repo.private,
    "runtime": lambda repo, facts: {"stage": "NO_APP_FILE", "hardware": {}},
    "safetensors": _safetensors,
    "sdk": lambda repo, facts: repo.sdk or facts.card.get("sdk"),
    "spaces": lambda repo, facts: [],
    "subdomain": _subdomain,
    "tags": lambda repo, facts: list(facts.tags),
    "transformersInfo": _transformers,
    "trendingScore": lambda repo, facts: repo.likes,
    "usedStorage": lambda repo, facts: repo.git_bytes + repo.lfs_bytes,
    "widgetData": lambda repo, facts: facts.card.get("widget"),
}


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
