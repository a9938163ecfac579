"""Every error of ours has one status and one OpenAI body."""

from __future__ import annotations

import inspect

import pytest

from inference import errors
from inference.routes.problems import TABLE, described

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SidecarError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status_of_its_own_and_a_whole_body(kind: type[errors.SidecarError]) -> None:
    status, body = described(kind("told", param="x"))
    assert status in range(400, 505)
    assert body["error"] == {"message": "told", "type": _type(status), "param": "x", "code": kind.code}
    assert any(kind is entry or issubclass(kind, entry) for entry, _, _ in TABLE[:-1]) or kind is errors.SidecarError


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error"
    )
