"""What a client is told to fetch is what the range needs: no byte less, no chunk more."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import Damaged, RangeUnsatisfiable
from lfs.store import Span
from lfs.xet import formats, hashes, plan
from lfs.xet.formats import XorbTable
from lfs.xet.index import File, Part, Xorb, packed
from lfs.xet.plan import Plan
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.drafts import Draft, Filed, drafts, ranges
from tests.lfs.xet.xorbs import made, random_xorb

Fetched = Mapping[str, list[tuple[int, int, list[bytes]]]]


def planned(filed: Filed, span: Span | None = None) -> Plan:
    return plan.plan(filed.file, span, filed.index.located, filed.tables.load)


def url_of(key: str, span: Span) -> str:
    return f"https://blobs/{key}?{span.start}-{span.end}"


def get(store: MemoryStore, url: str, span: Mapping[str, int]) -> bytes:
    """Answer a client's GET with `Range: bytes=start-end`; the URL opens just that."""
    key, allowed = url.removeprefix("https://blobs/").split("?")
    assert allowed == f"{span['start']}-{span['end'] + 1}"
    return store.objects[key][span["start"] : span["end"] + 1]


def fetch_v2(store: MemoryStore, answer: Any) -> Fetched:
    fetched: dict[str, list[tuple[int, int, list[bytes]]]] = {}
    for name, entries in answer["xorbs"].items():
        for entry in entries:
            (one,) = entry["ranges"]
            chunks = list(formats.chunks(get(store, entry["url"], one["bytes"])))
            fetched.setdefault(name, []).append((one["chunks"]["start"], one["chunks"]["end"], chunks))
    return fetched


def fetch_v1(store: MemoryStore, answer: Any) -> Fetched:
    return {
        name: [
            (
                entry["range"]["start"],
                entry["range"]["end"],
                list(formats.chunks(get(store, entry["url"], entry["url_range"]))),
            )
            for entry in entries
        ]
        for name, entries in answer["fetch_info"].items()
    }


def put_together(answer: Any, fetched: Fetched, size: int) -> bytes:
    """Do what a client does with what it fetched."""
    body = b""
    for term in answer["terms"]:
        start, end = term["range"]["start"], term["range"]["end"]
        (place,) = [place for place in fetched[term["hash"]] if place[0] <= start and end <= place[1]]
        chunks = place[2][start - place[0] : end - place[0]]
        assert sum(map(len, chunks)) == term["unpacked_length"]
        body += b"".join(chunks)
    skip = answer["offset_into_first_range"]
    return body[skip : skip + size]


Say = Callable[[Plan, plan.UrlOf], dict[str, object]]
APIS = pytest.mark.parametrize(("say", "fetch"), [(plan.answer_v1, fetch_v1), (plan.answer_v2, fetch_v2)])


@APIS
@given(drafts(), st.data())
def test_a_client_that_does_as_it_is_told_has_the_range(
    say: Say, fetch: Callable[[MemoryStore, Any], Fetched], draft: Draft, data: st.DataObject
) -> None:
    store = MemoryStore()
    filed = Filed(draft, store)
    span = data.draw(ranges(len(draft.body)))
    answer = json.loads(json.dumps(say(planned(filed, span), url_of)))
    assert put_together(answer, fetch(store, answer), span.size) == draft.body[span.start : span.end]


@APIS
def test_without_a_range_the_whole_file_is_told(say: Say, fetch: Callable[[MemoryStore, Any], Fetched]) -> None:
    store = MemoryStore()
    filed = Filed(Draft((random_xorb(1), random_xorb(2)), [(0, 2, 5), (1, 0, 1), (0, 0, 3)]), store)
    answer: Any = say(planned(filed), url_of)
    assert put_together(answer, fetch(store, answer), len(filed.body)) == filed.body


@given(drafts(), st.data())
def test_no_chunk_is_told_that_the_range_does_not_touch(draft: Draft, data: st.DataObject) -> None:
    span = data.draw(ranges(len(draft.body)))
    touched, at = set(), 0
    for number, start, end in draft.runs:
        for chunk in range(start, end):
            size = len(draft.xorbs[number].parts[chunk])
            if at < span.end and span.start < at + size:
                touched.add((draft.xorbs[number].hash, chunk))
            at += size
    told = planned(Filed(draft), span).xorbs
    listed = [(hash, chunk) for hash, one in told.items() for run in one.runs for chunk in range(run.start, run.end)]
    assert sorted(listed) == sorted(touched)
    for one in told.values():
        assert all(before.end < after.start for before, after in zip(one.runs, one.runs[1:], strict=False))


def test_an_answer_has_the_shape_that_clients_read() -> None:
    filed = Filed(Draft((made(b"a" * 10, b"b" * 20, b"c" * 30, b"d" * 40),), [(0, 1, 4), (0, 0, 1)]))
    name, key = hashes.text(next(iter(filed.rows))), next(iter(filed.rows.values())).key
    told = planned(filed, Span(25, 91))
    terms = [
        {"hash": name, "unpacked_length": 70, "range": {"start": 2, "end": 4}},
        {"hash": name, "unpacked_length": 10, "range": {"start": 0, "end": 1}},
    ]
    assert plan.answer_v2(told, url_of) == {
        "offset_into_first_range": 5,
        "terms": terms,
        "xorbs": {
            name: [
                {
                    "url": f"https://blobs/{key}?0-18",
                    "ranges": [{"chunks": {"start": 0, "end": 1}, "bytes": {"start": 0, "end": 17}}],
                },
                {
                    "url": f"https://blobs/{key}?46-132",
                    "ranges": [{"chunks": {"start": 2, "end": 4}, "bytes": {"start": 46, "end": 131}}],
                },
            ]
        },
    }
    assert plan.answer_v1(told, url_of) == {
        "offset_into_first_range": 5,
        "terms": terms,
        "fetch_info": {
            name: [
                {
                    "range": {"start": 0, "end": 1},
                    "url": f"https://blobs/{key}?0-18",
                    "url_range": {"start": 0, "end": 17},
                },
                {
                    "range": {"start": 2, "end": 4},
                    "url": f"https://blobs/{key}?46-132",
                    "url_range": {"start": 46, "end": 131},
                },
            ]
        },
    }


def test_an_empty_file_has_nothing_to_fetch_and_no_range() -> None:
    filed = Filed(Draft((), []))
    assert filed.file == File(hashes.EMPTY, 0, b"")
    assert plan.answer_v2(planned(filed), url_of) == {"offset_into_first_range": 0, "terms": [], "xorbs": {}}
    assert plan.answer_v1(planned(filed), url_of) == {"offset_into_first_range": 0, "terms": [], "fetch_info": {}}
    with pytest.raises(RangeUnsatisfiable) as refused:
        planned(filed, Span(0, 1))
    assert refused.value.size == 0


def test_a_range_past_the_end_is_cut_and_one_behind_it_refused() -> None:
    filed = Filed(Draft((random_xorb(1),), [(0, 0, 5)]))
    size = filed.file.size
    assert planned(filed, Span(size - 1, size + 1_000_000)) == planned(filed, Span(size - 1, size))
    for span in (Span(size, size + 1), Span(size + 5, size + 9), Span(7, 7)):
        with pytest.raises(RangeUnsatisfiable) as refused:
            planned(filed, span)
        assert refused.value.size == size


def test_a_xorb_that_is_quarantined_stops_only_ranges_that_need_it() -> None:
    first, second = random_xorb(1), random_xorb(2)
    filed = Filed(Draft((first, second), [(0, 0, 5), (1, 0, 5)]))
    filed.index.quarantine(second.hash, filed.rows[second.hash].key)
    half = filed.file.size // 2
    assert set(planned(filed, Span(0, half)).xorbs) == {first.hash}
    with pytest.raises(Damaged, match=hashes.text(second.hash)):
        planned(filed, Span(0, half + 1))


@pytest.mark.parametrize(
    "parts",
    [
        [Part(b"", 0, 6, 0)],
        [Part(b"", 0, 4, 0)],
        [Part(b"", 0, 5, 7)],
        [Part(b"", 2, 2, 0)],
        [Part(b"", 0, 3, 0), Part(b"", 3, 5, 50_000)],
        [],
    ],
)
@pytest.mark.parametrize("span", [None, Span(3, 4), Span(50_001, 50_002)])
def test_rows_that_do_not_fit_the_xorb_are_damage(parts: list[Part], span: Span | None) -> None:
    xorb = random_xorb(1)
    filed = Filed(Draft((xorb,), [(0, 0, 5)]))
    rows = packed([Part(xorb.hash, part.start, part.end, part.at) for part in parts])
    filed.file = File(filed.file.hash, filed.file.size, rows)
    with pytest.raises(Damaged):
        planned(filed, span)


def test_a_window_of_a_large_file_costs_no_more_than_the_window() -> None:
    # 6 GB in terms of one chunk each; a client asks for 60 MB of them.
    count, chunks, size = 100_000, 1000, 60_000
    table = XorbTable(b"".join(bytes(32) + _ends(at + 1, size) for at in range(chunks)))
    dice = random.Random(3)
    names = [dice.randbytes(32) for _ in range(100)]
    xorbs = {name: Xorb(name, "xet/xorbs/x", "xet/tables/x", 1, chunks * size, chunks) for name in names}
    places = [(dice.choice(names), dice.randrange(chunks)) for _ in range(count)]
    parts = [Part(name, chunk, chunk + 1, at * size) for at, (name, chunk) in enumerate(places)]
    file = File(bytes(32), count * size, packed(parts))

    def cost(span: Span | None) -> tuple[int, int]:
        """Return the memory that an answer takes while it is made, which no load of the machine changes; its terms."""
        tracemalloc.start()
        try:
            terms = len(plan.plan(file, span, lambda _: xorbs, lambda _: table).terms)
            return tracemalloc.get_traced_memory()[1], terms
        finally:
            tracemalloc.stop()

    window, terms = cost(Span(5_000_000_000, 5_060_000_000))
    whole, all_of_them = cost(None)
    assert (terms, all_of_them) == (1001, count)
    assert window < whole / 10


def _ends(count: int, size: int) -> bytes:
    return (count * (8 + size)).to_bytes(4, "little") + (count * size).to_bytes(4, "little")
