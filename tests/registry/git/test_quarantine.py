"""A pack on its way in is measured as it arrives and leaves nothing behind when refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git.quarantine import Quarantine
from registry.git.verdict import Limits, PackRefused, PackTooLarge
from tests.registry.git.pushed import one_commit

PACK, _ = one_commit((b"100644", b"a", b"x" * 1000))


def receive(quarantine, data):
    for at in range(0, len(data), 7):
        quarantine.write(data[at : at + 7])
    return quarantine.finish()


@given(st.lists(st.integers(1, len(PACK) - 1), max_size=20))
def test_any_split_of_the_body_is_the_same_file(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("q")
    places = [0, *sorted(set(cuts)), len(PACK)]
    with Quarantine(folder, "p", Limits(), fsync=False) as quarantine:
        for start, stop in pairwise(places):
            quarantine.write(PACK[start:stop])
        kept = quarantine.finish()
        assert (kept.bytes, kept.objects) == (len(PACK), 3)
        assert kept.path.read_bytes() == PACK
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", PackRefused),
        (PACK[:-1], PackRefused),
        (PACK[:31], PackRefused),
        (PACK[:40] + b"?" + PACK[41:], PackRefused),
        (b"JUNK" + PACK[4:], PackRefused),
        (PACK[:7] + b"\4" + PACK[8:], PackRefused),
        (PACK[:8] + b"\xff\xff\xff\xff" + PACK[12:], PackTooLarge),
    ],
)
def test_what_is_no_whole_pack_is_refused(tmp_path, data, error):
    with Quarantine(tmp_path, "p", Limits()) as quarantine, pytest.raises(error):
        receive(quarantine, data)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_of_bytes_refuses_while_they_come(tmp_path):
    with Quarantine(tmp_path, "p", Limits(pack=100)) as quarantine, pytest.raises(PackTooLarge, match="MAX_PACK"):
        quarantine.write(PACK[:101])
