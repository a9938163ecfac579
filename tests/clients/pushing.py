"""Pushes written by hand, and what must come of them."""

from __future__ import annotations

from registry.git import pkt
from registry.git.pkt import DELIM, FLUSH, PktReader
from tests.clients.hostile import ZERO, Site, refused

EVIL = b"refs/heads/evil"
LS_REFS = pkt.encode(b"command=ls-refs\n") + DELIM + pkt.encode(b"peel\n") + pkt.encode(b"symrefs\n") + FLUSH


def line(old: str, new: str, name: bytes, capabilities: bytes = b"report-status") -> bytes:
    """Write a push command."""
    return pkt.encode(f"{old} {new} ".encode() + name + (b"\0" + capabilities if capabilities else b""))


def create(tip: str, data: bytes, name: bytes = EVIL) -> bytes:
    """Write a push of one new ref."""
    return line(ZERO, tip, name) + FLUSH + data


def report(body: bytes) -> list[str]:
    """Read a report that came without side-band."""
    return [one.decode("latin-1").rstrip("\n") for one in PktReader([body]) if isinstance(one, bytes)]


def turned_down(site: Site, repo: str, body: bytes, **headers: str) -> list[str]:
    """Push what must be refused, with a status or with a report; return its reasons."""
    answer = site.push(repo, body, **headers)
    if answer.status_code != 200:
        assert answer.status_code in (400, 413)
        return [refused(answer, "git", answer.status_code)]
    said = report(answer.content)
    assert said, "a push with commands is answered"
    assert not [one for one in said if one.startswith("ok ")]
    return said
