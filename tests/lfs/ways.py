"""Every way an object takes into a shelf, walked as a client would: what a batch answers, then what its hrefs say."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from lfs.choices import Policy
from lfs.host import Upload
from lfs.proofs import Prover
from lfs.store import ObjectStore
from tests.lfs.alone import application
from tests.lfs.conftest import MEDIA_TYPE, serving
from tests.lfs.memory_host import MemoryHost

Item = dict[str, Any]

# What a client of each way offers, and how an operator has set the server up for it.
OFFERS = {"tus": ["basic", "tus"], "multipart": ["basic", "multipart"]}
TUS = "application/offset+octet-stream"
MIB = 1 << 20


def policy_of(way: str, part_size: int) -> Policy:
    """Return the policy under which clients of this way go it."""
    if way == "multipart":
        return Policy(multipart_threshold=1, part_size=part_size)
    if way in ("direct", "staging"):
        return Policy(upload=way)  # type: ignore[arg-type]  # narrowed by the line above
    return Policy(upload="proxy", redirect=False)


@dataclass
class Site:
    """A door on a socket, for one way."""

    url: str
    host: MemoryHost
    store: ObjectStore
    way: str
    http: httpx.Client

    def ask(self, body: bytes, who: str = "ann", repo: str = "org/model", operation: str = "upload") -> Item:
        """Ask a batch for one object; returns its answer."""
        return self.ask_for(hashlib.sha256(body).hexdigest(), len(body), who, repo, operation)

    def ask_for(
        self, oid: str, size: int, who: str = "ann", repo: str = "org/model", operation: str = "upload"
    ) -> Item:
        """Ask by oid."""
        sent = {"operation": operation, "objects": [{"oid": oid, "size": size}], "transfers": OFFERS.get(self.way, [])}
        headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE, "User-Agent": "git-lfs/3.8.1 (GitHub; linux)"}
        at = f"{self.url}/{repo}.git/info/lfs/objects/batch"
        answer = self.http.post(at, json=sent, auth=(who, who), headers=headers)
        assert answer.status_code == 200, answer.text
        (item,) = answer.json()["objects"]
        return dict(item)

    def send(self, item: Item, body: bytes) -> list[httpx.Response]:
        """Send bytes the way that a batch said; returns every answer, the last one decides."""
        action = item["actions"]["upload"]
        if self.way == "multipart" and "chunk_size" in action["header"]:
            return self._parts(item, body)
        if self.way == "tus":
            return [self._resume(action["href"], body)]
        return [self.http.put(action["href"], content=body, headers=action["header"])]

    def verify(self, item: Item, size: int | None = None) -> httpx.Response:
        """Do as a client does after its bytes were taken."""
        body = {"oid": item["oid"], "size": item["size"] if size is None else size}
        return self.http.post(item["actions"]["verify"]["href"], json=body, headers={"Content-Type": MEDIA_TYPE})

    def push(self, body: bytes, who: str = "ann", repo: str = "org/model") -> Item:
        """Do all that a client does to upload, and wait until the object is served."""
        item = self.ask(body, who, repo)
        self.deliver(item, body, repo)
        return item

    def deliver(self, item: Item, body: bytes, repo: str = "org/model") -> None:
        """Do what a batch answered, all of which must succeed, and wait until the object is served."""
        answers = self.send(item, body)
        if "verify" in item["actions"]:
            answers.append(self.verify(item))
        assert all(answer.is_success for answer in answers), answers[-1].text
        self.wait(body, repo)

    def wait(self, body: bytes, repo: str = "org/model") -> None:
        """Wait until a repo has a link to these bytes."""
        link = self.host.repos[repo], hashlib.sha256(body).hexdigest()
        until(lambda: link in self.host.links)

    def pull(self, body: bytes, who: str = "ann", repo: str = "org/model") -> bytes:
        """Download an object."""
        href = self.ask(body, who, repo, "download")["actions"]["download"]["href"]
        return self.http.get(href, follow_redirects=True).content

    def refused(self, body: bytes, who: str = "ann", repo: str = "org/model") -> bool:
        """Say whether a repo neither serves an object nor counts it as there."""
        down = self.ask(body, who, repo, "download")
        return down.get("error", {}).get("code") == 404 and "upload" in self.ask(body, who, repo)["actions"]

    def rows(self, body: bytes) -> list[Upload]:
        """Return the rows of uploads of these bytes, in the order they were opened."""
        oid = hashlib.sha256(body).hexdigest()
        return [row for row in self.host.uploads.values() if row.oid == oid]

    def _resume(self, href: str, body: bytes) -> httpx.Response:
        """Go on from where the upload is, again while another client of the same upload is at it."""
        for _ in range(400):
            answer = self.http.head(href, headers={"Tus-Resumable": "1.0.0"})
            offset = answer.headers.get("upload-offset", "")
            if offset and int(offset) < max(1, len(body)):
                told = {"Tus-Resumable": "1.0.0", "Upload-Offset": offset, "Content-Type": TUS}
                answer = self.http.patch(href, content=body[int(offset) :], headers=told)
            if answer.status_code not in (409, 429):
                break
            time.sleep(0.05)
        return answer

    def _parts(self, item: Item, body: bytes) -> list[httpx.Response]:
        header = dict(item["actions"]["upload"]["header"])
        size = int(header.pop("chunk_size"))
        cut = [body[start : start + size] for start in range(0, len(body), size)]
        # The git agent takes them in the order of their names.
        sent = [self.http.put(header[name], content=part) for name, part in zip(sorted(header), cut, strict=True)]
        if not all(each.is_success for each in sent):
            return sent
        return [*sent, self.complete(item, [each.headers["etag"] for each in sent])]

    def complete(self, item: Item, etags: list[str]) -> httpx.Response:
        """Post a completion that lists these tags in order."""
        parts = [{"partNumber": number, "etag": tag} for number, tag in enumerate(etags, 1)]
        return self.http.post(item["actions"]["upload"]["href"], json={"oid": item["oid"], "parts": parts})


@contextmanager
def walking(
    way: str, host: MemoryHost, store: ObjectStore, part_size: int, *, proving: bool = True, slots: int = 64
) -> Iterator[Site]:
    """Serve a door for one way, with a prover beside it unless the test is to see what waits for one."""
    prover = Prover(host=host, store=store, every=0.2)
    if proving:
        prover.start()
    app = application(host, store, policy=policy_of(way, part_size), told=prover.tell, upload_slots=slots)
    try:
        with serving(app) as url, httpx.Client(verify=False, trust_env=False, timeout=30) as http:
            yield Site(url, host, store, way, http)
    finally:
        prover.close()


def until(done: Callable[[], object]) -> None:
    """Wait for a condition, for 20 seconds at most."""
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.01)
