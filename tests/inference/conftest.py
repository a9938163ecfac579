"""What the sidecar's tests share: the smallest checkout, an echo engine over it, a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.app import assemble
from inference.keys import Keys
from inference.pool import Pool
from inference.rendering import Renderer
from inference.tiny import make_chat_model
from inference.visits import Visits
from tests.inference.echo import EchoEngine, EchoOrigin, EchoShelf
from tests.inference.listening import listening


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tiny chat model."""
    folder = tmp_path_factory.mktemp("model")
    make_chat_model(folder)
    return folder


@pytest.fixture(scope="session")
def renderer() -> Iterator[Renderer]:
    """Warm children for templates."""
    renderer = Renderer()
    yield renderer
    renderer.close()


@pytest.fixture
def engine() -> Iterator[EchoEngine]:
    """An engine that says the prompt again."""
    engine = EchoEngine()
    yield engine
    engine.close()


@pytest.fixture
def shelf(checkout: Path) -> EchoShelf:
    """Where `acme/echo` comes from."""
    return EchoShelf(checkout)


@pytest.fixture
def pool(engine: EchoEngine, shelf: EchoShelf) -> Iterator[Pool]:
    """A pool with the one model `acme/echo`."""
    pool = Pool(shelf, lambda path, repo, sha: engine, 10**12, 0)
    yield pool
    pool.close()


@pytest.fixture
def sidecar(pool: Pool, shelf: EchoShelf) -> Iterator[str]:
    """A sidecar over the echo engine, open to everyone on loopback; its base URL."""
    app = assemble(pool=pool, keys=Keys("none"), visits=Visits(), origin=EchoOrigin(["acme/echo"]), find=shelf.resolve)
    with listening(app) as url:
        yield url
