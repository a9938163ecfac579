"""What goes wrong beside the bytes, on their way back or at their end, costs neither a thread nor what is served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lfs.errors import Busy, Unavailable
from lfs.host import Arrival, Held, Opening, Wanted
from lfs.proofs import Prover
from lfs.reading_back import LEASE
from lfs.store import Reader, Span, lfs_key
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost
from tests.lfs.test_proofs import arrived


@pytest.mark.parametrize("breaks", ["close", "delete"])
def test_an_error_that_nobody_foresaw_costs_a_lease_and_not_the_thread(breaks: str) -> None:
    class Torn(MemoryStore):
        torn = True

        def open(self, key: str, span: Span | None = None) -> Reader:
            found, store = super().open(key, span), self

            class Tearing(type(found)):  # type: ignore[misc]  # the reader's own class is private to the shelf
                def _piece(self, limit: int) -> bytes:
                    if breaks == "close" and store.torn:
                        raise Unavailable("The bucket does not answer.")
                    return bytes(super()._piece(limit))

                def close(self) -> None:
                    super().close()
                    if breaks == "close" and store.torn:
                        raise RuntimeError("the socket is gone")

            found.__class__ = Tearing
            return found

        def delete(self, key: str) -> None:
            if breaks == "delete" and self.torn:
                raise RuntimeError("the folder is gone")
            super().delete(key)

    moved = [0.0]
    host, store = MemoryHost(clock=lambda: moved[0]), Torn()
    first = arrived(host, store, "staging")
    seat = Prover(host=host, store=store, clock=lambda: moved[0]).seats[-1]
    assert seat.turn()
    assert not seat.turn()
    store.torn, moved[0] = False, LEASE
    second = arrived(host, store, "staging")
    while seat.turn():
        pass
    assert [host.uploads[upload.id].state for upload in (first, second)] == ["done", "done"]
    assert host.leases == {}


def test_what_was_linked_is_not_asked_again_beside_what_is_busy() -> None:
    class Hasty(MemoryHost):
        asked = 0

        def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
            self.asked += 1
            if self.asked > 1:
                return super().finish_all(arrivals)
            found = [*super().finish_all(arrivals[:1]), Busy("The object is on its way out; try again.")]
            # And then what is served turns out to be bad: whoever brings it once more would be believed.
            self.objects[one] = replace(self.objects[one], state="damaged")
            return found

    host, store = Hasty(), MemoryStore()
    bodies = {hashlib.sha256(body).hexdigest(): body for body in (b"one", b"two")}
    one, two = bodies
    host.objects[one] = Held(3, lfs_key(one), "stored", linked=False)
    for oid, upload in host.begin(1, 1, [Opening(Wanted(oid, 3), "multipart", 5) for oid in bodies]).items():
        store.objects[lfs_key(oid, upload.id)] = bodies[oid]
        host.arrive(upload.id, lfs_key(oid, upload.id))
    assert Prover(host=host, store=store).seats[-1].turn()
    assert {upload.state for upload in host.uploads.values()} == {"done"}
    # Its own bytes were dropped as spare when it was linked: no row may name them now.
    assert host.objects[one] == Held(3, lfs_key(one), "damaged", linked=False)
    assert list(store.objects) == [host.objects[two].key]
