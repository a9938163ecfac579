"""The git door over a socket, with every shelf real and only the database's part played by memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request

from registry.access import Act
from registry.awaiting import Awaiting
from registry.errors import BadToken, NeedsLogin, NotAllowed, RepoAbsent
from registry.git.responses import Responses
from registry.git.snapshot import Snapshot
from registry.git.upload_pack import UploadPack
from registry.git.upload_pack_v0 import UploadPackV0
from registry.git.verdict import Limits
from registry.git.view import Views
from registry.names import RepoId
from registry.receive import Origin, Outcome, Update
from registry.routes.auth import token_of
from registry.routes.blocks import Threads
from registry.routes.git import GitDoor
from registry.routes.judging import Judging
from registry.routes.problems import InDialect, Problems
from registry.routes.pushes import Pushes
from tests.registry.git.packed import Depot


@dataclass
class Town:
    """Repos by name, as the database would know them; `private` ones open to the token `key`."""

    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    pushed: list[tuple[Origin, tuple[Update, ...], bytes | None]] = field(default_factory=list)
    gate: Callable[[tuple[Update, ...], Callable[[str], None]], Outcome] = lambda updates, progress: Outcome(updates)
    waiting: dict[str, int] = field(default_factory=dict)
    patience: float = 20.0

    def visit(self, request: Request, repo: RepoId, act: Act = "read") -> SimpleNamespace:
        """Play the part of Auth: `key` may read and write, `glance` may read, nobody reads public repos only."""
        token = token_of(request.headers)
        if token not in (None, "key", "glance"):
            raise BadToken("Unknown token.")
        known = repo.web in self.snapshots and (token is not None or repo.web not in self.private)
        if not known:
            raise RepoAbsent("There is no such repo.") if token else NeedsLogin("Log in.")
        if act != "read" and token != "key":
            raise NotAllowed("Read only.") if token else NeedsLogin("Log in.")
        repo_row = SimpleNamespace(id=list(self.snapshots).index(repo.web))
        return SimpleNamespace(repo=repo_row, actor=token, check_gate=lambda site: None)

    def accept(
        self,
        repo_id: int,
        origin: Origin,
        updates: Sequence[Update],
        pack: Path | None,
        *,
        atomic: bool,
        patient: bool,
        progress: Callable[[str], None],
    ) -> Outcome:
        """Play the part of the gate: remember what came and do as `gate` says."""
        self.pushed.append((origin, tuple(updates), None if pack is None else pack.read_bytes()))
        return self.gate(tuple(updates), progress)

    def unproven(self, repo_id: int, oids: Collection[str]) -> dict[str, int]:
        """Play the part of Uploads."""
        return {oid: size for oid, size in self.waiting.items() if oid in oids}

    def judging(self, workers: Executor) -> Judging:
        """Judge pushes by this town's gate, waiting for uploads as long as `unproven` says that there are some."""
        return Judging(receiver=self, workers=workers, awaiting=Awaiting(self.unproven, seconds=self.patience))

    def snapshot(self, repo_id: int) -> Snapshot:
        """Play the part of Repositories."""
        return list(self.snapshots.values())[repo_id]


@dataclass
class Door:
    """A running door."""

    url: str
    town: Town
    responses: Responses


@contextmanager
def door(folder: Path, depot: Depot) -> Iterator[Door]:
    """Serve the packs of a depot on a free port."""
    town = Town()
    builders = ThreadPoolExecutor(4)
    responses = Responses(folder / "responses", 1 << 30, builders)
    views = Views(depot.manifests)
    git = GitDoor(
        auth=town,
        repositories=town,
        upload_pack=UploadPack(views, responses, agent="weightroom/test"),
        upload_pack_v0=UploadPackV0(views, responses, agent="weightroom/test"),
        pushes=Pushes(
            judging=town.judging(builders),
            quarantine=folder / "quarantine",
            limits=Limits(),
            agent="weightroom/test",
            fsync=False,
        ),
        threads=Threads(8),
    )
    (folder / "quarantine").mkdir()
    routes = git.routes()
    for route in routes:
        route.app = InDialect(route.app, Problems("git"))
    with serve(Starlette(routes=routes)) as url:
        yield Door(url, town, responses)
    builders.shutdown()


@contextmanager
def serve(app: object) -> Iterator[str]:
    """Run an application on a free port of 127.0.0.1 until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    ready = threading.Event()
    server.install_signal_handlers = lambda: None
    startup = server.startup

    async def told(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = told
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
