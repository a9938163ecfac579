"""Each record is one line of JSON, tracebacks and odd characters included."""

from __future__ import annotations

import json
import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from registry.logs import ACCESS, JsonLines


def line(name: str, message: str, error: bool = False) -> str:
    record = logging.LogRecord(name, logging.INFO, "room.py", 1, message, (), None)
    if error:
        try:
            raise RuntimeError(message)
        except RuntimeError:
            record.exc_info = sys.exc_info()
    return JsonLines().format(record)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_a_record_is_one_line(message: str, error: bool) -> None:
    made = line("registry.ops", message, error)
    assert "\n" not in made
    found = json.loads(made)
    assert (found["message"], found["level"], found["room"]) == (message, "info", "registry.ops")
    assert ("traceback" in found) == error


def test_an_access_line_keeps_its_fields() -> None:
    found = json.loads(line(ACCESS, json.dumps({"id": "r-1", "status": 200})))
    assert (found["id"], found["status"]) == ("r-1", 200)
    assert found["at"].endswith("Z")
