"""Right bytes or an error: whatever lies in the store, no reader of a file gets a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfs.errors import Busy, Damaged
from lfs.local import LocalStore
from lfs.store import ObjectStore, Span
from lfs.xet import hashes
from lfs.xet.formats import XorbTable
from lfs.xet.index import File
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.drafts import Draft, Filed, drafts, large, read_until
from tests.lfs.xet.memory_index import MemoryIndex
from tests.lfs.xet.xorbs import random_xorb

MIB = 1 << 20


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "shelf", min_free=0, fsync=False)


@given(drafts(largest=200), st.data())
def test_no_flipped_byte_of_a_body_ever_leaves(draft: Draft, data: st.DataObject) -> None:
    store = MemoryStore()
    filed = Filed(draft, store)
    row = data.draw(st.sampled_from(list(filed.rows.values())))
    flip(store, row.key, data)
    got, why = told(filed)
    assert got in (draft.body, None)
    assert filed.quarantined() == (set() if got is not None else {row.hash})
    if got is None:
        assert hashes.text(row.hash) in why
        assert "weightroom fsck" in why
        with pytest.raises(Damaged, match=hashes.text(row.hash)):
            filed.shelf.open(filed.key)


@given(drafts(largest=200), st.data())
def test_a_flipped_byte_of_a_table_is_mended_from_the_body(draft: Draft, data: st.DataObject) -> None:
    store = MemoryStore()
    filed = Filed(draft, store)
    row = data.draw(st.sampled_from(list(filed.rows.values())))
    flip(store, row.table, data)
    assert filed.read() == draft.body
    assert not filed.quarantined()


@settings(max_examples=50)
@given(drafts(largest=200), st.data())
def test_a_flipped_byte_of_both_is_damage_or_right_bytes(draft: Draft, data: st.DataObject) -> None:
    store = MemoryStore()
    filed = Filed(draft, store)
    row = data.draw(st.sampled_from(list(filed.rows.values())))
    flip(store, row.table, data)
    flip(store, row.key, data)
    got, _ = told(filed)
    assert got in (draft.body, None)
    assert filed.quarantined() == (set() if got is not None else {row.hash})


def told(filed: Filed) -> tuple[bytes | None, str]:
    """Return the bytes of the file, or why there are none."""
    try:
        return filed.read(), ""
    except Damaged as error:
        return None, error.message


def flip(store: MemoryStore, key: str, data: st.DataObject) -> None:
    body = bytearray(store.objects[key])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    store.objects[key] = bytes(body)


def test_a_table_whose_packed_ends_are_wrong_is_mended_in_the_middle_of_a_large_file(store: ObjectStore) -> None:
    filed = Filed(large(), store)
    row = filed.rows[next(iter(filed.rows))]
    with store.open(row.table) as reader:
        good = reader.read_all()
    # Its check is right, as if the rows had been wrong when they were written: the name of a xorb proves hashes and
    # unpacked ends, not where chunks end in the body.
    rows = bytearray(XorbTable.from_bytes(good).rows)
    for chunk in range(29):
        rows[chunk * 40 + 32] ^= 1
    wrong = XorbTable(bytes(rows)).to_bytes()
    store.delete(row.table)
    store.put(row.table, wrong, len(wrong))
    assert filed.read() == filed.body
    assert not filed.quarantined()
    with store.open(row.table) as reader:
        assert reader.read_all() == good
    assert filed.read() == filed.body


def test_a_body_that_is_gone_is_damage_but_no_reason_to_give_it_up(store: ObjectStore) -> None:
    filed = Filed(Draft((random_xorb(1), random_xorb(2)), [(0, 0, 5), (1, 0, 5)]), store)
    gone = list(filed.rows.values())[1]
    store.delete(gone.key)
    with pytest.raises(Damaged, match="gone"):
        filed.read()
    assert filed.read(Span(0, 50_000)) == filed.body[:50_000]
    store.delete(gone.table)
    filed = Filed(Draft((random_xorb(1),), [(0, 0, 5)]), MemoryStore())
    filed.store.delete(next(iter(filed.rows.values())).key)
    filed.store.delete(next(iter(filed.rows.values())).table)
    with pytest.raises(Damaged, match="gone"):
        filed.read()
    assert not filed.quarantined()


@pytest.mark.parametrize("left", [0, 8, 50_000, -1])
def test_a_body_that_was_cut_is_quarantined(store: ObjectStore, left: int) -> None:
    xorb = random_xorb(1)
    filed = Filed(Draft((xorb,), [(0, 0, 5)]), store)
    row = filed.rows[xorb.hash]
    store.delete(row.key)
    store.put(row.key, xorb.body[:left], len(xorb.body[:left]))
    with pytest.raises(Damaged, match=hashes.text(xorb.hash)):
        filed.read()
    assert filed.quarantined() == {xorb.hash}


def test_a_body_that_is_cut_while_it_is_read_ends_the_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "shelf", min_free=0, fsync=False)
    filed = Filed(large(), store)
    first = next(iter(filed.rows.values()))
    path = store.stat(first.key).path
    assert path is not None
    with filed.shelf.open(filed.key) as reader:
        got = reader.read()
        path.chmod(0o600)
        with path.open("r+b") as body:
            body.truncate(2 * MIB + 100_000)
        got += read_until(Damaged, reader)
        assert filed.body.startswith(got)
        for _ in range(2):
            with pytest.raises(Damaged):
                reader.read()


def test_a_xorb_that_was_quarantined_is_not_even_opened() -> None:
    filed = Filed(large())
    bad = list(filed.rows.values())[2]
    filed.index.quarantine(bad.hash, bad.key)
    with pytest.raises(Damaged, match=hashes.text(bad.hash)):
        filed.shelf.open(filed.key)
    assert filed.read(Span(0, MIB)) == filed.body[:MIB]


def test_rows_that_do_not_fit_the_xorb_are_damage() -> None:
    filed = Filed(Draft((random_xorb(1),), [(0, 0, 5)]))
    filed.index.files[filed.file.hash] = File(filed.file.hash, filed.file.size + 1, filed.file.terms)
    with pytest.raises(Damaged, match="not what a file needs"):
        filed.read()


class Silent(MemoryIndex):
    """An index that does not answer to bad news."""

    def quarantine(self, hash: bytes, key: str, why: str = "has other bytes") -> None:
        raise Busy("Not now.")


def test_damage_is_told_also_when_the_index_does_not_answer() -> None:
    store = MemoryStore()
    filed = Filed(Draft((random_xorb(1),), [(0, 0, 5)]), store, Silent())
    row = next(iter(filed.rows.values()))
    store.objects[row.key] = bytes(row.size)
    with pytest.raises(Damaged, match=row.key):
        filed.read()
