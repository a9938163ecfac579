"""The child's side of rendering: what chat templates may say, and what they are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.sandbox import answer, environment, serve

compiled = environment().from_string


def _render(template: str, **variables: object) -> dict[str, str]:
    return answer(compiled, json.dumps({"template": template, "variables": variables}).encode())


def test_templates_have_the_language_they_are_written_for() -> None:
    template = (
        "{%- for m in messages %}\n"
        "  {%- if m.role == 'skip' %}{% continue %}{% endif %}\n"
        "{{ m.role }}: {% generation %}{{ m.content | tojson }}{% endgeneration %}\n"
        "{%- endfor %}{{ strftime_now('%%') }}"
    )
    turns = [{"role": "skip", "content": ""}, {"role": "user", "content": "é<"}]
    assert _render(template, messages=turns) == {"text": 'user: "é<"%'}


def test_a_template_may_refuse_messages_in_its_own_words() -> None:
    assert _render("{{ raise_exception('roles must alternate') }}") == {
        "error": "the chat template refused the messages: roles must alternate"
    }


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'a' * 2000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{% nonsense",
        "{{ '%d'|format('x') }}",
    ],
)
def test_hostile_and_broken_templates_are_errors(hostile: str) -> None:
    assert set(_render(hostile, messages=[])) == {"error"}


def test_lines_are_answered_until_they_end() -> None:
    lines = iter([b'{"template": "a", "variables": {}}\n', b'{"template": "b", "variables": {}}\n', b""])
    written: list[bytes] = []
    serve(lambda: next(lines), written.append)
    assert [json.loads(line) for line in written] == [{"text": "a"}, {"text": "b"}]


@given(st.text("{%}abc ifor|'#", max_size=60))
def test_any_template_text_has_an_answer(template: str) -> None:
    assert set(_render(template)) <= {"text", "error"}
