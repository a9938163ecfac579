"""`/v1/models`: what is loaded, what may be read, and nothing of what may not."""

from __future__ import annotations

import httpx
import pytest

from inference.app import assemble
from inference.keys import Keys
from inference.pool import Pool
from inference.visits import Visits
from tests.inference.echo import SHA, EchoOrigin, EchoShelf
from tests.inference.listening import listening

CHAT = {"model": "acme/echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


def test_a_model_is_listed_before_and_after_it_is_loaded(sidecar: str) -> None:
    before = httpx.get(f"{sidecar}/v1/models").json()["data"]
    assert [(entry["id"], entry["state"]) for entry in before] == [("acme/echo", "available")]
    httpx.post(f"{sidecar}/v1/chat/completions", json=CHAT)
    after = httpx.get(f"{sidecar}/v1/models").json()
    assert after["object"] == "list"
    entry = after["data"][0]
    assert (entry["id"], entry["object"], entry["owned_by"]) == ("acme/echo", "model", "acme")
    assert (entry["state"], entry["commit"], entry["context"]) == ("ready", SHA, 512)


@pytest.mark.parametrize("name", ["acme/echo", "acme/echo@main", "acme%2Fecho"])
def test_one_model_is_shown_by_its_name_with_slashes(sidecar: str, name: str) -> None:
    answer = httpx.get(f"{sidecar}/v1/models/{name}")
    assert answer.status_code == 200
    assert answer.json()["commit"] == answer.headers["x-model-commit"] == SHA


@pytest.mark.parametrize("name", ["acme/none", "..", "a b", "acme/echo@", "acme/echo:q4.gguf"])
def test_an_unknown_model_is_a_404(sidecar: str, name: str) -> None:
    answer = httpx.get(f"{sidecar}/v1/models/{name}")
    assert answer.status_code in (404, 501)
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_private_model_is_a_404_to_all_but_its_readers(pool: Pool, shelf: EchoShelf) -> None:
    shelf.private = "hf_ada"
    origin = EchoOrigin([], {"hf_ada": "ada", "hf_bob": "bob"})
    keys = Keys("registry", whoami=origin.whoami)
    app = assemble(pool=pool, keys=keys, visits=Visits(), origin=origin, find=shelf.resolve)

    def chat(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers).status_code

    with listening(app) as url:
        assert [chat(token) for token in ("hf_ada", "hf_bob", None, "hf_wrong")] == [200, 404, 404, 401]
        bob = {"Authorization": "Bearer hf_bob"}
        assert httpx.get(f"{url}/v1/models", headers=bob).json()["data"] == []
        assert httpx.get(f"{url}/v1/models/acme/echo", headers=bob).status_code == 404
        refused = httpx.get(f"{url}/v1/models", headers={"Authorization": "Basic x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
