"""Lock requests of any shape are answered or refused in our words; pages neither lose nor repeat."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import AlreadyLocked, BadRequest, LfsError
from lfs.host import Leave
from lfs.locks import LockDesk
from tests.lfs.memory_host import MemoryHost

ANN = Leave(1, 1, "ann", may_write=True, may_force=True)
BOB = Leave(1, 2, "bob", may_write=True, may_force=False)
values = st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.lists(st.none(), max_size=2)
bodies = st.dictionaries(st.sampled_from(["path", "ref", "force", "cursor", "limit"]), values)


@given(bodies | values, st.binary(max_size=40))
def test_any_body_is_answered_or_refused_in_our_words(fields: object, raw: bytes) -> None:
    desk = LockDesk(host=MemoryHost())
    for body in (json.dumps(fields).encode(), raw):
        for act in (desk.create, desk.verify, lambda leave, body: desk.remove(leave, "0" * 32, body)):
            try:
                answer = act(ANN, body)
            except LfsError:
                continue
            assert set(answer) <= {"lock", "ours", "theirs", "next_cursor"}


@given(st.lists(st.text("abc/", min_size=1, max_size=4), max_size=12), st.integers(1, 5))
def test_pages_hold_every_lock_once(paths: list[str], limit: int) -> None:
    desk, taken = LockDesk(host=MemoryHost()), []
    for number, path in enumerate(paths):
        try:
            desk.create((ANN, BOB)[number % 2], json.dumps({"path": path}).encode())
        except (AlreadyLocked, BadRequest):
            continue
        else:
            taken.append(path)
    listed: list[object] = []
    split: list[object] = []
    query, cursor = {"limit": str(limit)}, None
    while True:
        page = desk.list(ANN, query)
        listed += [lock["path"] for lock in page["locks"]]  # type: ignore[attr-defined]
        if "next_cursor" not in page:
            break
        query["cursor"] = str(page["next_cursor"])
    while True:
        sent = json.dumps({"limit": limit, **({"cursor": cursor} if cursor else {})}).encode()
        page = desk.verify(BOB, sent)
        assert {lock["owner"]["name"] for lock in page["ours"]} <= {"bob"}  # type: ignore[attr-defined]
        assert {lock["owner"]["name"] for lock in page["theirs"]} <= {"ann"}  # type: ignore[attr-defined]
        split += [lock["path"] for lock in [*page["ours"], *page["theirs"]]]  # type: ignore[misc]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    assert listed == taken
    assert sorted(map(str, split)) == sorted(taken)
