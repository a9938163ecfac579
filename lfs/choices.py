"""Which way an object takes into the store: by one transfer for a whole batch, and one mode for each of its objects.

    xet         the client offers it and the host knows where: there it sends chunks, and nothing is opened here
    tus         the client resumes by it, and the bytes would pass through us otherwise
    multipart   the client offers it and an object is large
    basic       to the bucket itself where that is allowed and safe, else through us

Nothing here asks a host or a shelf: what the shelf signs is told as a `Reach`.

Source: git-lfs docs/api/batch.md; huggingface_hub lfs.py and cli/lfs.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from lfs.errors import TooLarge
from lfs.host import Opening, UploadMode, Wanted

MIB, GIB = 1 << 20, 1 << 30
# What S3 takes: in one PUT, as one part, as the number of parts.
ONE_PUT = 5 * GIB
ONE_PART = 5 * GIB
MAX_PARTS = 10_000
# A bucket is asked to open an upload for every object that comes in parts; clients send 256 of them at most.
MAX_PARTED = 1_000

Transfer = Literal["basic", "multipart", "tus", "xet"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How an operator lets bytes travel; sizes in bytes.

    `upload` is the setting UPLOAD, `redirect` is DOWNLOAD, `max_file` bounds one object; `tus_part` is the size of
    the pieces in which a resumable upload goes to the shelf.
    """

    upload: Literal["direct", "staging", "proxy"] = "direct"
    redirect: bool = True
    multipart_threshold: int = GIB
    part_size: int = 64 * MIB
    max_file: int | None = None
    tus_part: int = 8 * MIB


@dataclass(frozen=True, slots=True)
class Reach:
    """What a shelf signs for clients: a PUT that binds the hash, one that binds the size alone, and a bare one of the
    latter, which needs no header that the client would not send by itself."""

    bound: bool = False
    sized: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The transfer of a batch, and what to open for each of its objects, in their order; for xet there is nothing."""

    transfer: Transfer
    openings: tuple[Opening, ...]


def choose(
    objects: Sequence[Wanted],
    offered: Collection[str],
    agent: str,
    policy: Policy,
    reach: Reach,
    *,
    xet: bool = False,
) -> Choice:
    """Pick the way of every object that is to be uploaded.

    `agent` is the client's User-Agent; `xet` says that the host takes chunks.
    Raises: TooLarge (the batch would need more parts than fit into an answer).
    """
    if xet and "xet" in offered:
        return Choice("xet", ())
    single = [Opening(each, _single(each, agent, policy, reach)) for each in objects]
    if "tus" in offered and any(each.mode == "proxy" for each in single):
        return Choice("tus", tuple(Opening(each, "tus", _grown(each.size, policy.tus_part)) for each in objects))
    if "multipart" in offered and any(each.size >= policy.multipart_threshold for each in objects):
        return Choice("multipart", tuple(_in_parts(objects, single, policy)))
    return Choice("basic", tuple(single))


def part_count(size: int, part_size: int) -> int:
    """Return in how many parts an object goes; clients compute the same."""
    return -(-size // part_size)


def part_length(size: int, part_size: int, number: int) -> int:
    """Return the bytes of part `number`, counted from 1; 0 if there is no such part."""
    return max(0, min(part_size, size - (number - 1) * part_size)) if number > 0 else 0


def _single(wanted: Wanted, agent: str, policy: Policy, reach: Reach) -> UploadMode:
    # Others ignore the headers of an action, and a URL that binds a hash is refused without them.
    heeds = agent.startswith("git-lfs/")
    if policy.upload == "proxy" or wanted.size > ONE_PUT:
        return "proxy"
    if reach.bound and heeds:
        return "direct"
    if policy.upload == "staging" and reach.sized and (heeds or reach.bare):
        return "staging"
    return "proxy"


def _in_parts(objects: Sequence[Wanted], single: Sequence[Opening], policy: Policy) -> list[Opening]:
    """Give every object parts, a small one its only one; an empty object has none and goes as it would alone."""
    if len(objects) > MAX_PARTED:
        raise TooLarge(f"A batch in parts may have {MAX_PARTED} objects; send fewer objects at a time.")
    sizes = [_grown(each.size, policy.part_size) for each in objects]
    # An answer names every part: 10,000 of them are 3 MB. A batch that has more gets larger ones.
    count = sum(part_count(each.size, size) for each, size in zip(objects, sizes, strict=True))
    factor = part_count(count, MAX_PARTS)
    if any(size * factor > ONE_PART for size in sizes):
        raise TooLarge(
            f"This batch needs more than {MAX_PARTS} parts of {ONE_PART} bytes; send fewer objects at a time."
        )
    return [
        Opening(alone.wanted, "multipart", size * factor) if alone.wanted.size else alone
        for alone, size in zip(single, sizes, strict=True)
    ]


def _grown(size: int, part_size: int) -> int:
    """Return the part size, or a larger multiple of 1 MiB by which the object has no more than 10,000 parts."""
    return part_size if part_count(size, part_size) <= MAX_PARTS else part_count(part_count(size, MAX_PARTS), MIB) * MIB
