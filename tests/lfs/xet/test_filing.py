"""A shard is filed if every word of it is true, and else nothing of it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lfs.errors import BadXet, Busy, QuotaExceeded, TooLarge
from lfs.heavy import Heavy
from lfs.store import shard_key
from lfs.xet import filing, hashes
from lfs.xet.checking import SMALLEST, SPARE
from lfs.xet.filing import Filing
from lfs.xet.index import Leave, Xorb
from lfs.xet.shards import Chunk, FiledFile, FiledXorb, Shard, Term, build
from lfs.xet.tables import Tables
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.memory_index import DOMAIN, OTHER, MemoryIndex
from tests.lfs.xet.sending import Clock
from tests.lfs.xet.xorbs import Made, made, random_xorb

ANN, TWIN, FAR = (Leave(repo, 1, domain, "write", 1 << 40) for repo, domain in ((1, DOMAIN), (2, DOMAIN), (3, OTHER)))
ONE, TWO, ALONE = random_xorb(1), random_xorb(2), random_xorb(3, 1)
OID = hashlib.sha256(b"what the client says").hexdigest()

Run = tuple[Made, int, int]


def file_of(*runs: Run, oid: str = OID) -> FiledFile:
    """A file as a client describes it: chunks `start` to `end` of xorbs."""
    terms, leaves = [], []
    for xorb, start, end in runs:
        table = xorb.table()
        terms.append(Term(xorb.hash, table.unpacked(start, end), start, end, table.span(start, end)))
        leaves += list(table.leaves(start, end))
    return FiledFile(hashes.file(leaves), tuple(terms), oid)


def block_of(xorb: Made, *asked: int) -> FiledXorb:
    """The chunks of a xorb as a client describes them; others should ask for some, by number."""
    chunks, at = [], 0
    for number, part in enumerate(xorb.parts):
        chunks.append(Chunk(hashes.chunk(part), at, len(part), eligible=number in asked))
        at += len(part)
    return FiledXorb(xorb.hash, tuple(chunks), at)


def shard_of(*files: FiledFile, xorbs: tuple[FiledXorb, ...] = ()) -> bytes:
    return build(Shard(files, xorbs))


@dataclass
class House:
    """Filing over an index and a shelf in memory, and what was heard of it."""

    heavy: Heavy | None = None
    max_file: int | None = None
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(default_factory=MemoryStore)
    stale: list[str] = field(default_factory=list)
    told: int = 0
    heard: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = MemoryIndex(clock=self.clock)
        self.rows: dict[bytes, Xorb] = {}
        self.filing = self.opened()

    def opened(self) -> Filing:
        """Build the rooms anew, as another process does."""
        return Filing(
            index=self.index,
            store=self.store,
            tables=Tables(self.store),
            heavy=self.heavy,
            clock=self.clock,
            stale=self.stale.append,
            told=self._tell,
            max_file=self.max_file,
        )

    def _tell(self) -> None:
        self.told += 1

    def keep(self, *xorbs: Made, leave: Leave = ANN) -> None:
        for xorb in xorbs:
            self.rows[xorb.hash] = self.rows.get(xorb.hash) or xorb.put(self.store)
            self.index.keep(leave, self.rows[xorb.hash])

    def file(self, data: bytes, leave: Leave = ANN) -> bool:
        return self.filing.file(leave, data, lambda done, total: self.heard.append((done, total)))

    def refused(self, data: bytes, kind: type[Exception] = BadXet) -> str:
        """Insist that nothing of a shard is filed or kept, and return what the user reads."""
        before = set(self.store.objects)
        with pytest.raises(kind) as failed:
            self.file(data)
        assert (self.index.files, self.index.links, self.index.marks, self.told) == ({}, {}, {}, 0)
        assert set(self.store.objects) == before
        return str(failed.value.message)  # type: ignore[attr-defined]  # all of ours have one

    def marks(self, domain: str = DOMAIN) -> dict[bytes, bytes]:
        return {chunk: xorb for (where, chunk), (_, xorb) in self.index.marks.items() if where == domain}


@pytest.fixture
def house() -> House:
    made_one = House()
    made_one.keep(ONE, TWO)
    return made_one


def told(file: FiledFile, **changes: Any) -> FiledFile:
    """A file whose first term says something else."""
    return replace(file, terms=(replace(file.terms[0], **changes), *file.terms[1:]))


GOOD = file_of((ONE, 1, 4), (TWO, 0, 2))
NAMED = hashes.text(GOOD.hash)

REFUSALS: dict[str, tuple[bytes, str]] = {
    "no range hashes": (
        shard_of(replace(GOOD, terms=tuple(replace(term, proof=b"") for term in GOOD.terms))),
        "This upload proves nothing of its files; use hf_xet 1.1 or newer.",
    ),
    "chunks that are not there": (
        shard_of(told(GOOD, end=6)),
        "The xorb has 5 chunks, not 1 to 6; name chunks that it has.",
    ),
    "other bytes": (
        shard_of(told(GOOD, unpacked=GOOD.terms[0].unpacked + 1)),
        f"File {NAMED} names chunks that are others here; upload it again.",
    ),
    "another range hash": (
        shard_of(told(GOOD, proof=bytes(31) + b"1")),
        f"File {NAMED} names chunks that are others here; upload it again.",
    ),
    "the range hash of other chunks": (
        shard_of(told(GOOD, proof=ONE.table().span(0, 3))),
        f"File {NAMED} names chunks that are others here; upload it again.",
    ),
    "another name": (
        shard_of(replace(GOOD, hash=bytes(31) + b"1")),
        f"The chunks of file {hashes.text(bytes(31) + b'1')} make another one; upload it again.",
    ),
    "a second file that lies": (
        shard_of(GOOD, replace(file_of((TWO, 0, 1)), hash=bytes(31) + b"1")),
        f"The chunks of file {hashes.text(bytes(31) + b'1')} make another one; upload it again.",
    ),
    "the same file twice": (
        shard_of(GOOD, GOOD),
        f"This Xet shard cannot be filed: file {NAMED} stands in it twice. Upload again, with the newest hf_xet.",
    ),
    "chunks of a xorb that are others": (
        shard_of(GOOD, xorbs=(replace(block_of(TWO), hash=ONE.hash),)),
        f"This upload describes xorb {hashes.text(ONE.hash)} not as it is; upload again.",
    ),
    "chunks of a xorb that are fewer": (
        shard_of(GOOD, xorbs=(replace(block_of(made(*ONE.parts[:4])), hash=ONE.hash),)),
        f"This upload describes xorb {hashes.text(ONE.hash)} not as it is; upload again.",
    ),
}


@pytest.mark.parametrize("lie", REFUSALS)
def test_a_shard_that_lies_is_refused_and_nothing_of_it_is_filed(house: House, lie: str) -> None:
    data, why = REFUSALS[lie]
    assert house.refused(data) == why
    assert house.stale == []


@pytest.mark.parametrize("state", ["absent", "elsewhere", "quarantined", "deleting"])
def test_a_xorb_that_is_not_here_is_uploaded_anew_by_a_client_that_starts_afresh(house: House, state: str) -> None:
    if state != "absent":
        house.keep(ALONE, leave=FAR if state == "elsewhere" else ANN)
    if state in ("quarantined", "deleting"):
        house.index.xorbs[ALONE.hash].state = state  # type: ignore[assignment]  # one of the line above
    gone = "1 of 3 xorbs of this upload are not here any more; upload the files again."
    assert house.refused(shard_of(GOOD, file_of((ALONE, 0, 1)))) == gone
    assert house.refused(shard_of(GOOD, xorbs=(block_of(ALONE),))) == gone
    assert house.stale == [DOMAIN, DOMAIN]


def test_a_xorb_that_goes_while_its_shard_is_checked_is_one_that_is_gone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = house.store.put

    def sweeping(*args: Any, **kwargs: Any) -> Any:
        house.index.xorbs[TWO.hash].state = "deleting"
        return put(*args, **kwargs)

    monkeypatch.setattr(house.store, "put", sweeping)
    with pytest.raises(BadXet, match="upload the files again"):
        house.file(shard_of(GOOD))
    assert (house.stale, house.index.files, house.told) == ([DOMAIN], {}, 0)


def test_a_live_xorb_that_the_shelf_lost_is_taken_in_again(house: House) -> None:
    for key in (house.rows[ONE.hash].key, house.rows[ONE.hash].table):
        house.store.delete(key)
    assert "was lost; upload the files again" in house.refused(shard_of(GOOD))
    assert house.stale == [DOMAIN]
    assert house.index.live(DOMAIN, [ONE.hash, TWO.hash]).keys() == {TWO.hash}


@pytest.mark.parametrize(("limit", "why"), [("MAX_NAMED", "5 chunks, 4 may"), ("MAX_FILES", "1 files, 0 may")])
def test_a_shard_of_too_much_is_refused(house: House, monkeypatch: pytest.MonkeyPatch, limit: str, why: str) -> None:
    monkeypatch.setattr(filing, limit, 4 if limit == "MAX_NAMED" else 0)
    assert why in house.refused(shard_of(GOOD), TooLarge)


@pytest.mark.parametrize("scattered", [True, False])
def test_a_file_of_crumbs_is_refused(house: House, scattered: bool) -> None:
    crumbs = made(*(b"%03d" % at for at in range(SPARE + 1)))
    house.keep(crumbs)
    runs = [(crumbs, at, at + 1) for at in range(SPARE + 1)] if scattered else [(crumbs, 0, SPARE + 1)]
    refused = file_of(*runs)
    why = f"is cut into {SPARE + 1} chunks, {SPARE} may be of {3 * SPARE + 3} bytes; upload it with hf_xet."
    assert house.refused(shard_of(GOOD, refused)) == f"File {hashes.text(refused.hash)} {why}"
    # So many are no harm, also beside chunks of the length that clients make.
    assert house.file(shard_of(file_of((crumbs, 0, SPARE)), file_of((ONE, 0, 5), (crumbs, 0, SPARE))))


def test_one_chunk_a_thousand_times_is_a_file(house: House) -> None:
    smallest = made(bytes(SMALLEST), b"the end")
    house.keep(smallest)
    assert house.file(shard_of(file_of(*[(smallest, 0, 1)] * 1_000, (smallest, 1, 2))))


def test_a_file_that_is_too_large_or_does_not_fit_is_refused(house: House) -> None:
    house.max_file = GOOD.size - 1
    house.filing = house.opened()
    assert "MAX_FILE" in house.refused(shard_of(GOOD), TooLarge)
    house.max_file, house.index.quota = None, GOOD.size - 1
    house.filing = house.opened()
    with pytest.raises(QuotaExceeded):
        house.file(shard_of(GOOD))
    assert house.index.links == {}


def test_what_is_filed_is_kept_as_the_shard_says(house: House) -> None:
    data = shard_of(GOOD, xorbs=(block_of(ONE),))
    assert house.file(data)
    assert not house.file(data)
    kept = house.index.files[GOOD.hash]
    assert kept.size == GOOD.size
    assert [(part.xorb, part.start, part.end, part.at) for part in kept.parts()] == [
        (ONE.hash, 1, 4, 0),
        (TWO.hash, 0, 2, GOOD.terms[0].unpacked),
    ]
    assert house.index.links == {(1, GOOD.hash, OID): "declared"}
    assert house.store.objects[shard_key(hashlib.sha256(data).hexdigest())] == data
    assert house.told == 2


def test_one_file_in_several_shards_and_repos_is_one(house: House) -> None:
    other = file_of((TWO, 0, 5))
    assert house.file(shard_of(GOOD))
    assert house.file(shard_of(GOOD, other))
    assert not house.file(shard_of(other))
    assert house.file(shard_of(other), TWIN)
    assert house.index.files.keys() == {GOOD.hash, other.hash}
    assert {(repo, file) for repo, file, _ in house.index.links} == {(1, GOOD.hash), (1, other.hash), (2, other.hash)}


def test_an_empty_file_has_no_sha256_and_no_marks(house: House) -> None:
    assert house.file(shard_of(FiledFile(hashes.EMPTY, (), "0" * 64), GOOD))
    assert house.index.links == {(1, hashes.EMPTY, ""): "declared", (1, GOOD.hash, OID): "declared"}
    assert house.index.files[hashes.EMPTY].size == 0
    assert set(house.marks()) == {hashes.chunk(ONE.parts[1])}


def test_a_shard_of_nothing_files_nothing(house: House) -> None:
    assert not house.file(shard_of())
    assert house.heard == [(0, 0)]


def test_clients_hear_how_far_their_shard_is(house: House) -> None:
    many = made(*(b"%03d" % at for at in range(130)))
    house.keep(many)
    assert house.file(shard_of(*(file_of((many, at, at + 1)) for at in range(130))))
    assert house.heard == [(0, 130), (64, 130), (128, 130), (130, 130)]


def eligible(count: int) -> list[bytes]:
    """Chunks that clients ask for wherever they stand."""
    found, at = [], 0
    while len(found) < count:
        if hashes.eligible(hashes.chunk(chunk := b"chunk %d" % at)):
            found.append(chunk)
        at += 1
    return found


def test_marks_are_the_first_chunk_those_in_a_thousand_and_those_that_the_client_names(house: House) -> None:
    [one_in_a_thousand] = eligible(1)
    other = made(b"first", b"second", one_in_a_thousand, b"third", b"named")
    house.keep(other)
    assert house.file(shard_of(file_of((ONE, 2, 4), (other, 1, 5)), xorbs=(block_of(other, 0, 4),)))
    expected = [(ONE.parts[2], ONE), (one_in_a_thousand, other), (b"named", other)]
    # The first chunk of `other` is named too, but is no part of the file.
    assert house.marks() == {hashes.chunk(chunk): xorb.hash for chunk, xorb in expected}


def test_who_names_every_chunk_gets_few_marks(house: House) -> None:
    many = made(*(b"%05d" % at * 1_700 for at in range(600)))
    house.keep(many)
    house.file(shard_of(file_of((many, 0, 600)), xorbs=(block_of(many, *range(600)),)))
    assert len(house.marks()) == 16 + 599 // 256


def test_a_large_shard_is_named_by_a_child_and_a_child_without_time_is_told(
    heavy: Heavy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "LARGE", 4)
    house = House(heavy)
    house.keep(ONE, TWO)
    assert house.refused(shard_of(replace(GOOD, hash=bytes(31) + b"1"))).endswith("make another one; upload it again.")
    assert house.file(shard_of(GOOD))
    closed = Heavy(workers=1, memory_bytes=1 << 29, deadline=9)
    closed.close()
    house.heavy = closed
    with pytest.raises(Busy, match=r"could not be checked now: .* Try again"):
        house.opened().file(ANN, shard_of(GOOD), lambda done, total: None)
