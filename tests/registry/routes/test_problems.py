"""Every error leaves every door with the status, headers and body that the door's clients act on."""

from __future__ import annotations

import errno
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lfs import errors as lfs
from registry import errors
from registry.routes.problems import TABLE, Dialect, InDialect, Problems, header_text, row_of


def answer(dialect: Dialect, error: Exception) -> Response:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"hub.example")], "scheme": "http"}
    scope |= {"server": ("hub.example", 80), "query_string": b"", "state": {"request_id": "r-1"}, "request_id": "r-1"}
    return Problems(dialect).render(error, Request(scope))


def every(root: type[Exception]) -> list[type[Exception]]:
    return [kind for child in root.__subclasses__() for kind in (child, *every(child))]


@pytest.mark.parametrize("kind", every(errors.RegistryError) + every(lfs.LfsError), ids=lambda kind: kind.__qualname__)
def test_every_class_has_a_row(kind: type[Exception]) -> None:
    assert any(row_of(Exception.__new__(kind)).git == status for status in range(400, 600))
    assert kind.__mro__.index(Exception) > 1
    if row_of(Exception.__new__(kind)).git == 500:
        assert issubclass(kind, errors.Damaged | lfs.StoreError | lfs.BadStorage)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NeedsLogin("x"), 401, "RepoNotFound"),
        (errors.BadToken("x"), 401, None),
        (errors.RepoAbsent("x"), 404, "RepoNotFound"),
        (errors.RevisionAbsent("x"), 404, "RevisionNotFound"),
        (errors.EntryAbsent("x", commit="a" * 40), 404, "EntryNotFound"),
        (errors.NotAllowed("x"), 403, None),
        (errors.Gated("x"), 403, "GatedRepo"),
        (errors.StaleParent("x"), 412, None),
        (errors.RefMoved("x"), 409, None),
        (errors.BadName("x"), 400, None),
        (errors.BadPath("x"), 422, None),
        (errors.QuotaExceeded("x"), 403, None),
        (errors.NoSpace("x"), 507, None),
        (errors.Busy("x"), 503, None),
        (lfs.Unavailable("x"), 503, None),
        (lfs.NoSpace("x"), 507, None),
    ],
)
def test_the_hub_dialect_names_the_case_in_its_headers(error: Exception, status: int, code: str | None) -> None:
    response = answer("hub", error)
    assert (response.status_code, response.headers.get("x-error-code")) == (status, code)
    assert json.loads(response.body)["error"] == response.headers["x-error-message"]
    assert "www-authenticate" not in response.headers
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_bad_token_has_the_text_that_clients_match() -> None:
    assert answer("hub", errors.BadToken("x")).headers["x-error-message"] == (
        "Invalid credentials in Authorization header"
    )


def test_people_with_a_bad_token_are_told_what_to_do() -> None:
    for dialect in ("git", "lfs"):
        assert b"valid one" in answer(dialect, errors.BadToken("x")).body


def test_absence_of_a_file_names_the_commit_that_lacks_it() -> None:
    assert answer("hub", errors.EntryAbsent("x", commit="a" * 40)).headers["x-repo-commit"] == "a" * 40


def test_what_exists_already_comes_with_its_url() -> None:
    body = json.loads(answer("hub", errors.Exists("there", path="/datasets/ada/d")).body)
    assert body == {"error": "there", "url": "http://hub.example/datasets/ada/d"}


@pytest.mark.parametrize("dialect", ["git", "lfs", "plain"])
@pytest.mark.parametrize("error", [errors.NeedsLogin("x"), errors.BadToken("x")])
def test_git_and_lfs_are_challenged(dialect: Dialect, error: Exception) -> None:
    response = answer(dialect, error)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Basic realm="weightroom"'
    assert ("lfs-authenticate" in response.headers) == (dialect == "lfs")


def test_git_shows_text_and_never_caches_a_refusal() -> None:
    response = answer("git", errors.NotAllowed("ada may read, not write"))
    assert (response.status_code, response.body) == (403, b"ada may read, not write\n")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["cache-control"] == "no-cache, max-age=0, must-revalidate"


def test_lfs_is_never_told_503() -> None:
    for kind, row in TABLE.items():
        assert row.lfs != 503, kind
    assert answer("lfs", errors.Busy("x")).status_code == 429
    response = answer("lfs", lfs.Unavailable("x"))
    assert (response.status_code, json.loads(response.body)["request_id"]) == (429, "r-1")


def test_a_lock_held_by_another_is_shown() -> None:
    lock = lfs.Lock("a" * 32, "w.bin", 7, "ada", datetime(2026, 1, 2, tzinfo=UTC))
    response = answer("lfs", lfs.AlreadyLocked("x", lock=lock))
    assert response.status_code == 409
    assert json.loads(response.body)["lock"]["owner"] == {"name": "ada"}


@pytest.mark.parametrize("dialect", ["git", "lfs", "hub", "plain"])
@pytest.mark.parametrize("error", [RuntimeError("hunter2"), errors.Damaged("hunter2"), lfs.Denied("hunter2")])
def test_the_unknown_tells_nothing_but_the_request_id(
    dialect: Dialect, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    response = answer(dialect, error)
    assert b"hunter2" not in response.body
    if response.status_code == 500 and dialect != "lfs":
        assert b"r-1" in response.body
        assert "r-1" in caplog.text


@given(st.text())
def test_any_text_becomes_a_header(text: str) -> None:
    made = header_text(text)
    assert made.encode("latin-1").isascii() or made.isprintable()
    assert not {"\r", "\n", "\0"} & set(made)
    response = answer("hub", errors.BadBody(text))
    assert json.loads(response.body)["error"] == text


def raising(error: Exception) -> Route:
    def endpoint(request: Request) -> Response:
        raise error

    route = Route("/raise", endpoint)
    route.app = InDialect(route.app, Problems("hub"))
    return route


def test_an_error_in_a_route_leaves_in_the_dialect_of_its_door() -> None:
    with TestClient(Starlette(routes=[raising(errors.RepoAbsent("gone"))])) as client:
        response = client.get("/raise")
    assert (response.status_code, response.headers["x-error-code"]) == (404, "RepoNotFound")


def test_an_error_after_the_answer_began_cuts_it_short() -> None:
    def pieces() -> object:
        yield b"some"
        raise errors.Damaged("rot")

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(pieces())  # type: ignore[arg-type]

    route = Route("/stream", endpoint)
    route.app = InDialect(route.app, Problems("hub"))
    with TestClient(Starlette(routes=[route])) as client, pytest.raises(errors.Damaged):
        client.get("/stream")


@pytest.mark.parametrize("dialect", ["git", "lfs", "hub", "plain"])
def test_a_full_disk_is_named_wherever_it_is_met(dialect: Dialect, caplog: pytest.LogCaptureFixture) -> None:
    response = answer(dialect, OSError(errno.ENOSPC, "No space left on device", "/srv/data/slots/0"))
    assert response.status_code == 507
    assert b"free space" in response.body
    assert b"/srv" not in response.body
    assert "r-1" in caplog.text
