"""Every refusal has a status that git-lfs understands, and words that its user sees."""

from __future__ import annotations

import inspect
import json

import pytest
from starlette.requests import Request

from lfs import errors
from lfs.errors import LfsError
from lfs.problems import MEDIA_TYPE, render, status_of

REQUEST = Request({"type": "http", "headers": [], "request_id": "id-1"})
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LfsError)]
# What an operator must mend; no client can.
OURS = {
    "LfsError",
    "StoreError",
    "Denied",
    "BadStorage",
    "HeavyError",
    "HeavyTimeout",
    "HeavyOutOfMemory",
    "HeavyCrashed",
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_upload_is_answered_with_422_and_only_our_own_faults_with_500(kind: type[LfsError]) -> None:
    status = status_of(kind.__new__(kind))
    assert status != 422
    assert (status == 500) == (kind.__name__ in OURS)
    assert status != 503


def test_codes_are_unique_and_the_tree_names_every_class() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(codes) == len(set(codes))
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in errors.__doc__] == []


def test_a_refusal_is_a_message_and_the_id_of_the_request() -> None:
    answer = render(errors.RepoAbsent("No such repo; create it."), REQUEST)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert json.loads(bytes(answer.body)) == {"message": "No such repo; create it.", "request_id": "id-1"}


def test_nobody_is_told_to_wait_longer_than_git_lfs_does() -> None:
    for error in (errors.Busy("Wait.", retry_after=3600), errors.Unavailable("Wait.")):
        answer = render(error, REQUEST)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60


def test_a_range_beyond_the_end_names_the_size() -> None:
    answer = render(errors.RangeUnsatisfiable("Too far.", size=10), REQUEST)
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
