"""`weightroom gc`: collect, look first, undo, list."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import timedelta

import sqlalchemy as sa

from registry.commands.opening import FINDINGS, OK, standing
from registry.config import Config
from registry.db import Database
from registry.errors import BadBody, RepoAbsent
from registry.names import RepoType, parse_repo_id
from registry.tables.identity import namespaces
from registry.tables.repos import repos
from registry.upkeep.gc import Gc, Scope
from registry.upkeep.reclaim import Graces, Line, day
from registry.upkeep.runs import Counts, Run, summary

_TYPES: Mapping[str, RepoType] = {"datasets/": "dataset", "spaces/": "space", "": "model"}


def gc(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Collect what no ref needs, or say what would go; status 1 if something was left for somebody to look at."""
    config = Config.from_environ(environ)
    with standing(config) as shelves:
        collection = Gc(
            database=shelves.database,
            store=shelves.store,
            repositories=shelves.repositories,
            manifests=shelves.manifests,
            graces=_graces(asked),
        )
        if asked.act == "list":
            return _list(collection, as_json=asked.json)
        if asked.act == "undo":
            return _undo(collection, asked.run, as_json=asked.json)
        return _collect(collection, _scope(shelves.database, asked), asked)


def _graces(asked: argparse.Namespace) -> Graces:
    given = {one.name: getattr(asked, f"grace_{one.name}", None) for one in fields(Graces)}
    return Graces(**{name: value for name, value in given.items() if isinstance(value, timedelta)})


def _scope(database: Database, asked: argparse.Namespace) -> Scope:
    return Scope(_repo(database, asked.repo) if asked.repo else None, yes=asked.yes, now=asked.now)


def _repo(database: Database, text: str) -> int:
    """Find the repo of a name as it stands in a URL. Raises: BadName, RepoAbsent."""
    prefix = next(prefix for prefix in _TYPES if text.startswith(prefix))
    name = parse_repo_id(_TYPES[prefix], text.removeprefix(prefix))
    chosen = (
        sa.select(repos.c.id)
        .join(namespaces, namespaces.c.id == repos.c.namespace_id)
        .where(repos.c.type == name.type, repos.c.name_fold == name.name.casefold(), repos.c.deleted_at.is_(None))
        .where(namespaces.c.name_fold == name.namespace.casefold())
    )
    with database.look() as connection:
        found = connection.execute(chosen).scalar()
    if found is None:
        raise RepoAbsent(f"There is no repo {text}; name it as in its URL, such as org/name or datasets/org/name.")
    return int(found)


def _collect(collection: Gc, scope: Scope, asked: argparse.Namespace) -> int:
    lines = collection.plan(scope) if asked.dry_run else collection.run(scope)
    counts = _print(lines, as_json=asked.json)
    if not asked.json:
        said = "would go" if asked.dry_run else f"run {collection.runs.latest(1)[0].id}"
        print(f"{said}: {counts.text()}", file=sys.stderr)
    return FINDINGS if counts.skipped else OK


def _undo(collection: Gc, run_id: int, *, as_json: bool) -> int:
    if collection.runs.find(run_id) is None:
        raise BadBody(f"There is no run {run_id}; see `weightroom gc list`.")
    counts = _print(collection.undo(run_id), as_json=as_json)
    if not as_json:
        print(f"undone: {counts.text()}", file=sys.stderr)
    return FINDINGS if counts.skipped else OK


def _list(collection: Gc, *, as_json: bool) -> int:
    for run in collection.runs.latest():
        print(json.dumps(_fields(run)) if as_json else _told(run))
    return OK


def _told(run: Run) -> str:
    state = "cut off" if run.state == "done" and run.finished_at is None else run.state
    return f"{run.id:>6}  {day(run.started_at)}  {state:8}{summary(run.counts)}"


def _fields(run: Run) -> dict[str, object]:
    finished = None if run.finished_at is None else run.finished_at.isoformat()
    found = {"id": run.id, "started_at": run.started_at.isoformat(), "finished_at": finished, "state": run.state}
    return found | {"options": run.options, "counts": run.counts}


def _print(lines: Iterable[Line], *, as_json: bool) -> Counts:
    counts = Counts()
    for line in lines:
        counts.add(line)
        print(json.dumps(line.fields()) if as_json else line.line(), flush=True)
    return counts
