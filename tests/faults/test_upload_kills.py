"""A server killed in the midst of an upload, before steps that change something, and by every way that bytes take.

Each death is a real one, of a process of its own over the same rows and bytes. Then the next process finds everything
that was acknowledged, serves nothing that is not proven, and the client that goes on with its old addresses succeeds.
`WEIGHTROOM_TEST_SCALE=full` dies before every step, not before every fourth.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest
from botocore.httpsession import URLLib3Session

from lfs.errors import LfsError
from lfs.grants import Grant
from lfs.host import Opening, Upload, UploadMode, Wanted
from lfs.multipart import Multipart
from lfs.reading_back import LEASE
from lfs.store import Probe, lfs_key, staging_key
from lfs.tus import Tus
from lfs.uploads import Uploads
from registry import schema
from registry.config import Config
from registry.db import Database
from registry.desk import Shelves
from registry.routes.auth import DoorAccess
from registry.routes.lfs import LfsHost
from tests.faults.test_gc import NEVER, Changes
from tests.lfs import proving
from tests.registry import people
from tests.services.house import findings
from tests.services.s3 import S3Endpoint, make_bucket, moto

pytestmark = pytest.mark.faults
S3 = [pytest.mark.s3, pytest.mark.xdist_group("s3")]
# A bucket takes no smaller part but the last.
FULL = os.environ.get("WEIGHTROOM_TEST_SCALE") == "full"
PART = {"disk": 4096, "bucket": 5 << 20}


@functools.cache
def noise(size: int) -> bytes:
    return random.Random(6).randbytes(size)


@dataclass(frozen=True)
class Scene:
    """Rows in a folder, bytes there or in a bucket, and a client that sends `body` as the object `oid` by one way."""

    folder: Path
    storage: dict[str, str]
    way: UploadMode
    honest: bool = True

    @property
    def part_size(self) -> int:
        return PART["bucket" if self.storage else "disk"]

    @property
    def body(self) -> bytes:
        return noise(self.part_size + 1000)

    @property
    def sent(self) -> bytes:
        """What the client sends: bytes of the right length at least."""
        return self.body if self.honest else bytes(len(self.body))

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Life:
    """One process over a scene: a client and the server's rooms."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.shelves = Shelves(Config.from_environ({"WEIGHTROOM_DATA": str(scene.folder)} | scene.storage))
        self.store = self.shelves.store
        self.store.believe(Probe("content_sha256" if scene.way == "direct" else "none", {}))
        self.host = LfsHost(
            access=DoorAccess(self.shelves.database),
            links=self.shelves.links,
            uploads=self.shelves.uploads,
            linker=self.shelves.linker,
            locks=self.shelves.locks,
            secrets=[b"secret"],
            origin=lambda headers, scheme: "http://host",
        )
        self._notes = scene.folder / "client"

    def close(self) -> None:
        self.shelves.close()

    def push(self) -> None:
        """Do what a client and the server do for one object; a client that came back goes on with what it was told."""
        if "upload" not in self.told:
            opening = Opening(Wanted(self.scene.oid, len(self.scene.body)), self.scene.way, self.scene.part_size)
            self.tell("upload", self.host.begin(1, 1, [opening])[self.scene.oid].id)
        SENDERS[self.scene.way](self, self.host.upload(self.told["upload"]))

    def prove(self) -> None:
        """Do the work of a prover."""
        for upload in self.host.arrived("ab" * 16, LEASE, 10):
            proving.prove(upload, "ab" * 16, host=self.host, store=self.store)
            self.host.release(upload.id, "ab" * 16)

    @property
    def told(self) -> dict[str, str]:
        """What the server acknowledged so far, as its client remembers it."""
        return dict(json.loads(line) for line in self._notes.read_text().splitlines()) if self._notes.exists() else {}

    def tell(self, what: str, value: str = "") -> None:
        """Acknowledge."""
        with self._notes.open("a") as notes:
            notes.write(json.dumps([what, value]) + "\n")

    @property
    def state(self) -> str:
        return self.host.upload(self.told["upload"]).state

    def served(self) -> bytes | None:
        """What the repo serves; None if the object looks absent."""
        held = self.host.look(1, [self.scene.oid]).get(self.scene.oid)
        if held is None or not held.linked:
            return None
        with self.store.open(held.key) as reader:
            return reader.read_all()

    def grant(self, upload: Upload) -> Grant:
        return Grant("put", 1, upload.oid, upload.size, 0, 1, upload.id)


def whole(life: Life, upload: Upload) -> None:
    """PUT through the server."""
    Uploads(host=life.host, store=life.store, told=lambda: None).take(life.grant(upload), [life.scene.sent])
    life.tell("linked")


def past(life: Life, upload: Upload) -> None:
    """PUT to the bucket, then verify."""
    if "put" not in life.told:
        key = staging_key(upload.id) if upload.mode == "staging" else lfs_key(upload.oid, upload.id)
        # The client's own doing: nothing that a server could die at.
        life.store.put(key, life.scene.sent, upload.size)
        life.tell("put")
    Uploads(host=life.host, store=life.store, told=lambda: None).verify(life.grant(upload), upload.size)
    life.tell("linked" if upload.mode == "direct" else "arrived")


def in_parts(life: Life, upload: Upload) -> None:
    """PUT each part, then complete."""
    multipart = Multipart(host=life.host, store=life.store, told=lambda: None)
    size = upload.part_size
    for number in (1, 2):
        if f"part {number}" not in life.told and upload.state == "open":
            if not upload.session:
                # As a batch does.
                life.host.attach({upload.id: life.store.parts(lfs_key(upload.oid, upload.id), size).begin()})
                upload = life.host.upload(upload.id)
            life.tell(f"part {number}", multipart.take(upload, number, [life.scene.sent[(number - 1) * size :][:size]]))
    parts = [{"partNumber": number, "etag": life.told[f"part {number}"]} for number in (1, 2)]
    multipart.complete(life.grant(upload), json.dumps({"oid": upload.oid, "parts": parts}).encode())
    life.tell("arrived")


def resumed(life: Life, upload: Upload) -> None:
    """Ask how far it is, and PATCH: in two requests, so that the end is read back."""
    tus, grant = Tus(host=life.host, store=life.store, told=lambda: None), life.grant(upload)
    offset = tus.offset(grant)
    assert offset >= int(life.told.get("offset", "0")), "acknowledged bytes are gone"
    for end in (upload.part_size, upload.size):
        if offset < end:
            lease = tus.lease(grant)
            try:
                offset = tus.take(grant, offset, [life.scene.sent[offset:end]], lease)
            finally:
                lease.give_back()
            life.tell("offset", str(offset))
    life.tell("arrived")


SENDERS: dict[UploadMode, Callable[[Life, Upload], None]] = {
    "proxy": whole,
    "direct": past,
    "staging": past,
    "multipart": in_parts,
    "tus": resumed,
}


class Steps(Changes):
    """Counts also the requests to a bucket that change something."""

    def watch_bucket(self) -> None:
        real = URLLib3Session.send

        def counted(session: URLLib3Session, request: object) -> object:
            if (method := getattr(request, "method", "")) not in ("GET", "HEAD"):
                self.step(method)
            return real(session, request)

        URLLib3Session.send = counted  # type: ignore[method-assign]


def live(scene: Scene, step: int, log: str) -> None:
    """Push and prove, and die before a step; runs in a process of its own."""
    life = Life(scene)
    steps = Steps(step, log)
    # A kill leaves the page cache: before an fsync is as after it.
    for name in ("rename", "link", "unlink", "pwrite", "ftruncate"):
        steps.watch(name)
    steps.watch_commits()
    steps.watch_bucket()
    steps.arm()
    life.push()
    life.prove()
    steps.step("end")


def child(scene: Scene, step: int, log: Path) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=live, args=(scene, step, str(log)))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one repo."""
    folder = tmp_path_factory.mktemp("template")
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    schema.migrate(database)
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "m")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[S3Endpoint]:
    with moto() as found:
        make_bucket(found, "kills")
        yield found


WAYS = [pytest.param("disk", way, id=f"{way} to disk") for way in ("proxy", "multipart", "tus")]
WAYS += [
    pytest.param("bucket", way, marks=S3, id=f"{way} to bucket")
    for way in ("proxy", "direct", "staging", "multipart", "tus")
]
READ_BACK = [way for way in WAYS if str(way.id).split()[0] in ("multipart", "tus", "staging")]
if not FULL:
    READ_BACK = [way for way in READ_BACK if way.id in ("multipart to disk", "staging to bucket")]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Callable[[], dict[str, str]]:
    """Make settings of a place for bytes, empty each time."""
    if request.getfixturevalue("kind") == "disk":
        return dict
    endpoint: S3Endpoint = request.getfixturevalue("endpoint")
    keys = {"WEIGHTROOM_S3_ACCESS_KEY": endpoint.access_key, "WEIGHTROOM_S3_SECRET_KEY": endpoint.secret_key}
    url = f"?endpoint={endpoint.url}&region={endpoint.region}"
    return lambda: {"WEIGHTROOM_STORAGE": f"s3://kills/{uuid4().hex}{url}", **keys}


def deaths(template: Path, scene: Scene, place: Callable[[], dict[str, str]]) -> Iterator[Life]:
    """Yield what the next process finds after deaths at every fourth step, and first of all after none."""
    log = scene.folder / "steps"
    yield from _found(template, scene, place, NEVER, log)
    count = len(log.read_text().splitlines())
    assert count > 2
    for step in range(count, 0, -1 if FULL else -4):
        yield from _found(template, scene, place, step, scene.folder / "log")


def _found(template: Path, scene: Scene, place: Callable[[], dict[str, str]], step: int, log: Path) -> Iterator[Life]:
    one = replace(scene, folder=scene.folder / str(step), storage=place())
    shutil.copytree(template, one.folder)
    ended = child(one, step, log)
    assert ended == (0 if step == NEVER else -signal.SIGKILL), f"step {step}"
    life = Life(one)
    yield life
    life.close()
    shutil.rmtree(one.folder)


def lapse(life: Life) -> None:
    """Let half a minute pass: what the dead held is free again."""
    with life.shelves.database.write() as connection:
        connection.exec_driver_sql("UPDATE lfs_uploads SET lease_until = created_at WHERE lease <> ''")


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.timeout(300)
def test_what_was_acknowledged_is_there_and_the_client_goes_on(
    kind: str, way: UploadMode, template: Path, tmp_path: Path, place: Callable[[], dict[str, str]]
) -> None:
    scene = Scene(tmp_path, {}, way)
    for life in deaths(template, scene, place):
        assert findings(life.shelves) == []
        assert life.served() in (None, life.scene.body)
        lapse(life)
        if "linked" in life.told or "arrived" in life.told:
            # Its client does not come back.
            life.prove()
            assert life.served() == life.scene.body
        life.push()
        life.prove()
        assert life.served() == life.scene.body
        assert findings(life.shelves) == []
        assert len(list(life.store.walk("lfs/"))) == 1


@pytest.mark.parametrize(("kind", "way"), READ_BACK)
@pytest.mark.timeout(300)
def test_what_is_not_the_object_is_never_served(
    kind: str, way: UploadMode, template: Path, tmp_path: Path, place: Callable[[], dict[str, str]]
) -> None:
    scene = Scene(tmp_path, {}, way, honest=False)
    for life in deaths(template, scene, place):
        assert life.served() is None
        lapse(life)
        with contextlib.suppress(LfsError):
            life.push()
        life.prove()
        assert (life.served(), life.state) == (None, "failed")
        assert findings(life.shelves) == []
