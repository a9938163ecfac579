"""Range header ↔ bytes of an object whose size and tag are known.

Source: RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range), 14.4 (Content-Range).
"""

from __future__ import annotations

import re

from lfs.errors import RangeUnsatisfiable

_ONE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,19})\s*-\s*(\d{0,19})|-\s*(\d{1,19}))\s*", re.IGNORECASE | re.ASCII)


def asked(header: str | None, size: int, *, if_range: str | None = None, etag: str = "") -> tuple[int, int] | None:
    """Return the bytes `[start, end)` to send of `size`, or None for the whole with a plain 200.

    The whole also answers what RFC 9110 lets a server ignore: other units, several ranges, nonsense, and an `If-Range`
    that is not `etag` (with its quotes) to the letter. Raises: RangeUnsatisfiable.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _ONE.fullmatch(header)
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeUnsatisfiable(f"The object has {size} bytes; ask for a range within them.", size=size)
    return start, end


def content_range(start: int, end: int, size: int) -> str:
    """Return the Content-Range of the bytes `[start, end)` of `size`."""
    return f"bytes {start}-{end - 1}/{size}"


def unsatisfied(size: int) -> str:
    """Return the Content-Range of a 416."""
    return f"bytes */{size}"
