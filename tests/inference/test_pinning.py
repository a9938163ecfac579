"""Pinned models are asked for until the registry gives them."""

from __future__ import annotations

from inference.errors import ModelAbsent, Unavailable
from inference.pinning import Pins
from tests.inference.echo import wait_until


def test_a_name_is_pinned_once_and_a_missing_one_again_and_again() -> None:
    pinned: list[str] = []
    answers = {"acme/a": [Unavailable("away"), ModelAbsent("absent")], "acme/b": []}

    def pin(name: str) -> bool:
        if answers[name]:
            raise answers[name].pop()
        pinned.append(name)
        return True

    pins = Pins(["acme/a", "acme/b"], pin, again=0.01)
    pins.start()
    wait_until(lambda: len(pinned) == 2)
    assert pinned == ["acme/b", "acme/a"]
    pins.close()
