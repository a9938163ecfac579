"""Addresses are read from the raw path, whatever is quoted in it."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from registry.errors import BadBody, RepoAbsent
from registry.routes.hub.arrivals import count, flag, kind_of, next_link, repo_of


def _request(path: str, query: str = "", **named: str) -> Request:
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"hub.test")],
        "server": ("hub.test", 80),
        "scheme": "http",
        "path_params": named,
        "state": {"origin": "https://public.test/prefix"},
    }
    return Request(scope)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/models/a/b", "model"),
        ("/api/datasets/a/b/tree/main", "dataset"),
        ("/api/spaces", "space"),
        ("/a/b/resolve/main/x", "model"),
        ("/datasets/a/b/resolve/main/x", "dataset"),
        ("/spaces/a/b/raw/main/x", "space"),
    ],
)
def test_the_type_follows_from_the_address(path: str, kind: str) -> None:
    assert kind_of(_request(path)) == kind


def test_a_name_with_a_slash_is_no_repo() -> None:
    with pytest.raises(RepoAbsent):
        repo_of(_request("/api/models/a/b", namespace="a", name="b/c"))


def test_the_next_page_keeps_every_other_parameter() -> None:
    request = _request("/api/models", "filter=a&filter=b%26c&cursor=old&limit=2")
    assert next_link(request, cursor="new&") == (
        '<https://public.test/prefix/api/models?filter=a&filter=b%26c&limit=2&cursor=new%26>; rel="next"'
    )


def test_numbers_and_flags_are_read_with_care() -> None:
    request = _request("/api/models", "limit=5000&full=True&blobs=0&bad=-1&long=" + "9" * 30)
    assert count(request, "limit", 10, 1000) == 1000
    assert count(request, "absent", 10, 1000) == 10
    assert (flag(request, "full"), flag(request, "blobs"), flag(request, "absent")) == (True, False, False)
    for name in ("bad", "long", "full"):
        with pytest.raises(BadBody):
            count(request, name, 10, 1000)
