"""What the sidecar's tests share: the smallest checkout, an echo engine over it, a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.rendering import Renderer
from tests.inference.echo import EchoEngine, EchoPool
from tests.services.tiny_model import make_chat_model


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
def pool(engine: EchoEngine, checkout: Path) -> EchoPool:
    """A pool with the one model `acme/echo`."""
    return EchoPool(engine, checkout)
