"""Which ref a name from the Hub means when something is to be written there."""

from __future__ import annotations

from registry.errors import BadBody, BadName, RevisionAbsent
from registry.git import fsck
from registry.git.snapshot import Snapshot
from registry.names import is_sha

HEADS, TAGS = b"refs/heads/", b"refs/tags/"
_WRITABLE = (HEADS, b"refs/pr/", b"refs/convert/")


def writable_ref(snapshot: Snapshot, revision: str) -> bytes:
    """Name the branch, or other writable ref, that a revision means; `HEAD` is the default branch.

    The default branch counts as there while the repo has no branch at all, so that a first commit can be made.
    Raises: BadBody (a tag or a commit, which cannot move), RevisionAbsent.
    """
    name = _bytes(revision)
    asked = snapshot.head if name == b"HEAD" else HEADS + name
    if asked in snapshot.refs:
        return asked
    if name.startswith(_WRITABLE):
        asked = name
    if asked in snapshot.refs:
        return asked
    if asked == snapshot.head and not any(one.startswith(HEADS) for one in snapshot.refs):
        return asked
    if is_sha(revision) or TAGS + name in snapshot.refs or name in snapshot.refs:
        raise BadBody(f"{revision} is a commit or a tag; name a branch to write to.")
    raise RevisionAbsent(f"Invalid rev id: {revision}")


def branch_ref(name: str) -> bytes:
    """Name the ref of a branch to be made.

    Raises: BadName.
    """
    return _checked(HEADS, name, "Invalid reference for a branch")


def tag_ref(name: str) -> bytes:
    """Name the ref of a tag to be made.

    Raises: BadName.
    """
    return _checked(TAGS, name, "Invalid reference for a tag")


def shown(name: bytes) -> str:
    """Write a ref name for people."""
    return name.decode(errors="replace")


def _checked(folder: bytes, name: str, refusal: str) -> bytes:
    full = folder + _bytes(name)
    # A branch named like a full sha, or `refs/…`, could never be reached by its name.
    taken = name == "HEAD" or name.startswith(("refs/", "-")) or is_sha(name)
    if taken or fsck.check_ref_name(full) is not None:
        raise BadName(refusal)
    return full


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
