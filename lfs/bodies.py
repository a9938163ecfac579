"""JSON bodies of Git LFS, read with care: what every request of it shares."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lfs.errors import BadRequest

Json = dict[str, object]


def document(body: bytes) -> Json:
    """Read a JSON object. Raises: BadRequest."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.")
    return fields


def text_of(fields: Mapping[str, object], name: str) -> str:
    """Return a text field or query parameter, empty if it is absent or null. Raises: BadRequest."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _storable(value):
        raise BadRequest(f"`{name}` must be a string.")
    return value


def count_of(value: object, name: str) -> int | None:
    """Return a whole number from a field or query parameter, None if it is absent. Raises: BadRequest."""
    if value in (None, ""):
        return None
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    raise BadRequest(f"`{name}` must be a whole number.")


def ref_of(fields: Json) -> str:
    """Return the ref that a request names, empty if none: absent, null, {}, {"name": ref} or the bare name.

    Raises: BadRequest.
    """
    ref = fields.get("ref")
    if isinstance(ref, dict):
        return text_of(ref, "name")
    return text_of(fields, "ref")


def _storable(text: str) -> bool:
    """Say whether text can go into a database: JSON may carry NUL and lone surrogates, PostgreSQL takes neither."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
