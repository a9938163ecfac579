"""Fields of JSON bodies, read by type; what a route does not know is ignored, as the Hub does."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from registry.errors import BadBody, TooLarge
from registry.names import RepoId, RepoType, parse_repo_id, repo_id

Body = Mapping[str, object]

_TYPES: Mapping[object, RepoType] = {None: "model", "model": "model", "dataset": "dataset", "space": "space"}


def text(body: Body, name: str) -> str:
    """Read a text that must be there.

    Raises: BadBody.
    """
    found = maybe_text(body, name)
    if found is None:
        raise BadBody(f'"{name}" is missing.')
    return found


def maybe_text(body: Body, name: str) -> str | None:
    """Read a text; absent and null are None.

    Raises: BadBody.
    """
    found = body.get(name)
    if found is not None and (not isinstance(found, str) or not _is_unicode(found)):
        raise BadBody(f'"{name}" must be a string of valid Unicode.')
    return found


def flag(body: Body, name: str) -> bool | None:
    """Read a yes or no; absent and null are None.

    Raises: BadBody.
    """
    found = body.get(name)
    if found is not None and not isinstance(found, bool):
        raise BadBody(f'"{name}" must be true or false.')
    return found


def whole(body: Body, name: str) -> int | None:
    """Read a number of bytes; absent and null are None.

    Raises: BadBody.
    """
    found = body.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 63:
        raise BadBody(f'"{name}" must be a whole number, zero or more.')
    return found


def content(body: Body) -> bytes:
    """Read a short `content` by its `encoding`: base64, or text.

    Raises: BadBody.
    """
    found, encoding = text(body, "content"), maybe_text(body, "encoding") or "utf-8"
    if encoding == "utf-8":
        return found.encode()
    if encoding != "base64":
        raise BadBody('"encoding" must be "base64" or "utf-8".')
    return base64_of(found, "content")


def base64_of(found: str, name: str) -> bytes:
    """Decode base64 that stood in a field.

    Raises: BadBody.
    """
    try:
        return base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadBody(f'"{name}" is not base64.') from error


def private(body: Body) -> bool | None:
    """Read a visibility: by `visibility`, else by the older `private`; None if neither is there.

    Raises: BadBody.
    """
    named = maybe_text(body, "visibility")
    if named is None:
        return flag(body, "private")
    if named not in ("public", "private"):
        raise BadBody('"visibility" must be "public" or "private".')
    return named == "private"


def repo_type(body: Body) -> RepoType:
    """Read the type of a repo; absent is a model.

    Raises: BadBody.
    """
    named = maybe_text(body, "type")
    if named not in _TYPES:
        raise BadBody('"type" must be "model", "dataset" or "space".')
    return _TYPES[named]


def repo(body: Body, own: str) -> RepoId:
    """Read the repo that `name` and `organization` mean; without the latter it is one of `own`'s.

    Raises: BadBody, BadName.
    """
    name, kind = text(body, "name"), repo_type(body)
    if "/" in name:
        return parse_repo_id(kind, name)
    return repo_id(kind, maybe_text(body, "organization") or own, name)


def _is_unicode(found: str) -> bool:
    """JSON may escape half a surrogate pair, which no encoding writes."""
    return found.isascii() or not any("\ud800" <= one <= "\udfff" for one in found)


def objects(body: Body, name: str, *, most: int) -> list[Body]:
    """Return an array of objects. Raises: BadBody, TooLarge (there are more than `most`)."""
    found = body.get(name)
    if not isinstance(found, list):
        raise BadBody(f'"{name}" must be an array.')
    if len(found) > most:
        raise TooLarge(f"One call takes at most {most} {name}; ask in parts.")
    if not all(isinstance(each, dict) for each in found):
        raise BadBody(f'Each of "{name}" must be an object.')
    return found
