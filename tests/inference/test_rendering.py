"""Templates run in a child, under a deadline and a memory limit, and cost nobody else anything."""

from __future__ import annotations

import threading
import time

import pytest

from inference.errors import InvalidRequest
from inference.rendering import MAX_TEMPLATE, Renderer

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_a_child_answers_with_the_text(renderer: Renderer) -> None:
    assert renderer.render("a" * 40, "{{ x }}\u00e9", {"x": "ü\n"}) == "ü\né"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' * 400000000 }}", "256 MiB"),
        ("{{ raise_exception('no') }}", "refused"),
        ("{{ 'a' * 2000000 }}", "more than 1048576"),
        (" " * (MAX_TEMPLATE + 1), "longer than"),
    ],
)
def test_a_refusal_says_why(renderer: Renderer, template: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        renderer.render("b" * 40, template, {"messages": []})
    assert caught.value.param == "messages"


def test_a_slow_template_is_ended_and_does_not_delay_a_proven_one() -> None:
    renderer = Renderer(deadline=1.0)
    try:
        assert renderer.render("good", "{{ 1 }}", {}) == "1"
        assert renderer.render("good", "{{ 1 }}", {}) == "1"
        failed = threading.Event()

        def slow() -> None:
            with pytest.raises(InvalidRequest, match="took longer"):
                renderer.render("bad", ENDLESS, {})
            failed.set()

        thread = threading.Thread(target=slow)
        thread.start()
        started = time.monotonic()
        assert renderer.render("good", "{{ 2 }}", {}) == "2"
        assert time.monotonic() - started < 0.9
        thread.join(10)
        assert failed.is_set()
        assert renderer.render("other", "{{ 3 }}", {}) == "3"
    finally:
        renderer.close()


def test_a_proven_template_that_turns_slow_loses_its_standing() -> None:
    renderer = Renderer(deadline=0.5)
    template = "{% if slow %}" + ENDLESS + "{% endif %}"
    try:
        assert renderer.render("turncoat", template, {"slow": False}) == ""
        with pytest.raises(InvalidRequest):
            renderer.render("turncoat", template, {"slow": True})
        assert not renderer._is_proven("turncoat")
    finally:
        renderer.close()
