"""Delta chains of any shape cost bounded memory and give the objects they describe."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry.git.packfile import BLOB
from registry.git.snapshot import ZERO
from registry.git.verdict import Limits
from tests.registry.git.packed import git, new_repo
from tests.registry.git.pushed import MAIN, Bench, by_id, by_offset, delta, pack, sha, whole

NOWHERE = (MAIN, ZERO, "ab" * 20)
MIB = 1 << 20
MEASURE = """
import json, resource, sys
from registry.git import ingest
from registry.git.verdict import Job, Update
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
verdict = ingest.check(Job(sys.argv[1], (), (Update(b"refs/tags/x", "0" * 40, "ab" * 20),)))
print(json.dumps([(peak() - before) << 10, verdict.unpack_error, str(verdict.refusals)]))
"""


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def measured(tmp_path, data):
    """Check a pack in a process of its own; give the growth of its memory in bytes and what it said."""
    path = tmp_path / "measured.pack"
    path.write_bytes(data)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return json.loads(done.stdout)


def comb(size, teeth):
    """A chain in which every object also has a leaf, and every leaf a leaf of its own."""
    entries = [whole(BLOB, b"b" * size)]
    offsets = [12]
    end = 12 + len(entries[0])

    def add(base, tag):
        nonlocal end
        entries.append(by_offset(end - offsets[base], delta(size, [b"%08d" % tag, (8, size - 8)])))
        offsets.append(end)
        end += len(entries[-1])
        return len(offsets) - 1

    spine, tag = 0, 0
    for _ in range(teeth):
        tag += 3
        leaf = add(spine, tag)
        add(leaf, tag + 1)
        spine = add(spine, tag + 2)
    return pack(*entries)


def test_a_comb_needs_the_memory_of_a_few_objects(tmp_path):
    data = comb(MIB, 270)
    assert len(data) < 30_000
    grown, error, refusals = measured(tmp_path, data)
    assert error is None
    assert "missing" in refusals
    assert grown < 60 * MIB


def test_a_chain_of_a_hundred_thousand_is_refused_in_time(bench):
    base = whole(BLOB, b"b" * 20)
    entries, back = [base], len(base)
    for n in range(100_000):
        entries.append(by_offset(back, delta(20, [b"%06d" % n, (6, 14)])))
        back = len(entries[-1])
    data = pack(*entries)
    begun = time.process_time()
    verdict = bench.check(data, NOWHERE)
    assert verdict.unpack_error == "a delta chain is longer than 4095"
    assert time.process_time() - begun < 10


def test_the_longest_chain_that_is_taken(bench, tmp_path):
    base = whole(BLOB, b"b" * 20)
    entries, back = [base], len(base)
    for n in range(4095):
        entries.append(by_offset(back, delta(20, [b"%06d" % n, (6, 14)])))
        back = len(entries[-1])
    last = sha(BLOB, b"004094" + b"b" * 14).hex()
    verdict = bench.check(pack(*entries), (b"refs/tags/x", ZERO, last))
    assert verdict.unpack_error is None
    assert set(verdict.tips) == {last}


def test_a_comb_by_ids_is_held_to_the_memory_limit(bench):
    size, entries, base = 100_000, [whole(BLOB, b"b" * 100_000)], sha(BLOB, b"b" * 100_000)
    for n in range(50):
        spine = delta(size, [b"%08d" % n, (8, size - 8)])
        text = b"%08d" % n + b"b" * (size - 8)
        entries += [by_id(base, delta(size, [b"leaf%04d" % n, (8, size - 8)])), by_id(base, spine)]
        base = sha(BLOB, text)
    assert bench.check(pack(*entries), NOWHERE).unpack_error is None
    verdict = bench.check(pack(*entries), NOWHERE, limits=Limits(delta_memory=150_000))
    assert "need more than 150000 bytes of memory" in verdict.unpack_error


def test_deltas_may_come_before_their_bases_and_build_on_each_other_by_id(bench, tmp_path):
    first, second, third = b"1" * 50, b"2" + b"1" * 49, b"3" + b"1" * 49
    entries = [
        by_id(sha(BLOB, second), delta(50, [b"3", (1, 49)])),
        by_id(sha(BLOB, first), delta(50, [b"2", (1, 49)])),
        whole(BLOB, first),
    ]
    wanted = [sha(BLOB, one).hex() for one in (first, second, third)]
    updates = [(f"refs/tags/{one}".encode(), ZERO, one) for one in wanted]
    verdict = bench.check(pack(*entries), *updates)
    assert set(verdict.tips) == set(wanted)
    git(new_repo(tmp_path / "r"), "index-pack", "--stdin", input=Path(verdict.pack.path).read_bytes())


def test_a_ring_of_deltas_is_unresolved(bench):
    one, two = b"\1" * 20, b"\2" * 20
    verdict = bench.check(pack(by_id(one, delta(5, [b"a"])), by_id(two, delta(5, [b"b"]))), NOWHERE)
    assert verdict.unpack_error.startswith("unresolved deltas: 2")


def test_a_large_blob_goes_by_in_pieces(tmp_path):
    """200 MiB that do not compress: memory stays flat."""
    path = tmp_path / "blob"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(MIB))
    data = pack(whole(BLOB, path.read_bytes(), level=0))
    grown, error, _ = measured(tmp_path, data)
    assert error is None
    # The mapped file itself counts in this figure as far as it was read.
    assert grown < len(data) + 20 * MIB
