"""What the registry answers, and what the sidecar makes of answers that no registry should give."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from inference.errors import InvalidKey, Unavailable
from inference.origin import Origin
from tests.inference.listening import listening

seen: list[str] = []


def _whoami(request: Request) -> Response:
    return {
        "Bearer hf_ada": JSONResponse({"type": "user", "name": "ada"}),
        "Bearer hf_odd": JSONResponse(["ada"]),
        "Bearer hf_text": PlainTextResponse("hello"),
        "Bearer hf_broken": PlainTextResponse("", 502),
        "Bearer hf_moved": RedirectResponse("/thief"),
    }.get(request.headers.get("authorization", ""), JSONResponse({"error": "no"}, 401))


def _models(request: Request) -> Response:
    seen.append(request.headers.get("authorization", "none"))
    return JSONResponse([{"id": "a/b"}, {"id": 3}, "x", {"id": "c/d"}])


def _thief(request: Request) -> Response:
    seen.append("thief")
    return JSONResponse({"name": "thief"})


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    app = Starlette(routes=[Route("/api/whoami-v2", _whoami), Route("/api/models", _models), Route("/thief", _thief)])
    with listening(app) as url:
        yield Origin(url)


def test_a_token_has_a_name(origin: Origin) -> None:
    assert origin.whoami("hf_ada") == "ada"


def test_an_unknown_token_is_refused(origin: Origin) -> None:
    with pytest.raises(InvalidKey):
        origin.whoami("hf_bob")


@pytest.mark.parametrize("token", ["hf_odd", "hf_text", "hf_broken", "hf_moved", "line\nbreak"])
def test_any_other_answer_means_that_the_registry_is_away(origin: Origin, token: str) -> None:
    with pytest.raises(Unavailable) as caught:
        origin.whoami(token)
    assert caught.value.code == "registry_unavailable"
    assert "thief" not in seen


def test_models_are_listed_as_the_token_sees_them(origin: Origin) -> None:
    assert origin.models("hf_ada") == ["a/b", "c/d"]
    assert origin.models(None, limit=1) == ["a/b"]
    assert seen == ["Bearer hf_ada", "none"]


def test_a_registry_that_does_not_answer_is_away() -> None:
    with pytest.raises(Unavailable):
        Origin("http://127.0.0.1:9", timeout=1).models(None)
