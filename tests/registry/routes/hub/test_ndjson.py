"""The lines of a commit reach the draft whole, however they are cut, and garbage is refused in our words."""

import base64
import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import BadBody, RegistryError, SizeMismatch, TooLarge
from registry.routes.hub.ndjson import CommitLines

HEADER = {"key": "header", "value": {"summary": "s", "description": "d"}}


class Sink:
    """Stands where a draft stands and remembers what it was told."""

    def __init__(self):
        self.told = []

    def head(self, summary, description, parent):
        self.told.append(("head", summary, description, parent))

    def file(self, path, size, pieces):
        content = b"".join(pieces)
        if len(content) != size:
            raise SizeMismatch("size")
        self.told.append(("file", path, content))

    def large_file(self, path, oid, size):
        self.told.append(("large", path, oid, size))

    def delete(self, path):
        self.told.append(("delete", path))


def encoded(*lines):
    return b"\n".join(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") for line in lines)


def take(body, cuts=(), **limits):
    sink = Sink()
    lines = CommitLines(sink, **limits)
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(places):
        lines.feed(body[start:stop])
    lines.end()
    return sink.told


def file_line(path, content, encoding="base64"):
    text = base64.b64encode(content).decode() if encoding == "base64" else content.decode()
    return {"key": "file", "value": {"content": text, "path": path, "encoding": encoding}}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("file"), st.text(), st.binary(max_size=50)),
            st.tuples(st.just("text"), st.text(), st.text(max_size=50)),
            st.tuples(st.just("large"), st.text(), st.text(), st.one_of(st.none(), st.integers(0, 2**62))),
            st.tuples(st.just("delete"), st.text()),
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 5000), max_size=8),
    st.booleans(),
)
def test_what_is_sent_is_taken_in_order(operations, cuts, last_feed):
    lines, expected = [HEADER], [("head", "s", "d", None)]
    for act, path, *more in operations:
        if act == "file":
            lines.append(file_line(path, more[0]))
            expected.append(("file", path, more[0]))
        elif act == "text":
            lines.append({"key": "file", "value": {"path": path, "content": more[0], "encoding": "utf-8"}})
            expected.append(("file", path, more[0].encode()))
        elif act == "large":
            lines.append({"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": more[0], "size": more[1]}})
            expected.append(("large", path, more[0], more[1]))
        else:
            lines.append({"key": "deletedFolder", "value": {"path": path}})
            expected.append(("delete", path))
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert take(body if last_feed else body[:-1], cuts) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1 << 20, (1 << 20) + 1, (2 << 20) + 2, 3 << 20])
@pytest.mark.parametrize("order", ["content first", "content last"])
def test_long_contents_are_decoded_in_pieces(size, order):
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    line = file_line("big.bin", content)
    if order == "content last":
        line["value"] = dict(reversed(line["value"].items()))
    body = encoded(HEADER, line)
    cuts = range(0, len(body), 70_000)
    assert take(body, cuts)[1:] == [("file", "big.bin", content)]


def test_a_long_text_with_escapes_is_taken_too():
    content = '"content":"\\' + "é\n" * (1 << 19)
    assert take(encoded(HEADER, file_line("a", content.encode(), "utf-8")))[1:] == [("file", "a", content.encode())]
    plain = "A" * (1 << 21)
    assert take(encoded(HEADER, file_line("a", plain.encode(), "utf-8")))[1:] == [("file", "a", plain.encode())]


def test_a_content_in_the_wrong_place_is_refused():
    long = "A" * (1 << 21)
    for line in (
        {"key": "file", "content": long, "value": {"path": "a", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "x": {"content": long}}},
        {"key": "file", "value": {"path": "a", '"content': long}},
    ):
        with pytest.raises(BadBody):
            take(encoded(HEADER, line))


@pytest.mark.parametrize(
    "line",
    [
        {"key": "file", "value": {"path": "a", "content": "!!!!", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "AAA", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "eA=", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "=", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "é===", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "AA==AA==", "encoding": "base64"}},
        {"key": "file", "value": {"path": "a", "content": "a", "encoding": "rot13"}},
        {"key": "file", "value": {"path": "a", "content": "\ud800", "encoding": "utf-8"}},
        {"key": "file", "value": {"path": "a"}},
        {"key": "file", "value": {"path": 3, "content": ""}},
        {"key": "lfsFile", "value": {"path": "a", "oid": "x", "algo": "sha1"}},
        {"key": "lfsFile", "value": {"path": "a", "oid": "x", "size": -1}},
        {"key": "lfsFile", "value": {"path": "a", "oid": "x", "size": True}},
        {"key": "lfsFile", "value": {"path": "a"}},
        {"key": "deletedFile", "value": {}},
        {"key": "chmod", "value": {"path": "a"}},
        {"key": "file", "value": []},
        {"key": "header", "value": {"summary": "again"}},
        [],
    ],
)
def test_operations_that_make_no_sense_are_refused(line):
    with pytest.raises((BadBody, SizeMismatch)):
        take(json.dumps(HEADER).encode() + b"\n" + json.dumps(line).encode())


def test_the_header_comes_first():
    for body in (b"", b"\n\n", encoded(file_line("a", b"x")), encoded({"key": "header"})):
        with pytest.raises(BadBody):
            take(body)
    assert take(b"\n \r\n" + encoded({"key": "header", "value": {"summary": "s", "parentCommit": "abc"}})) == [
        ("head", "s", "", "abc")
    ]


def test_lines_and_bodies_have_limits():
    body = encoded(HEADER, file_line("a", b"x" * 100))
    for limits in ({"longest_line": 100}, {"most_bytes": 150}):
        with pytest.raises(TooLarge):
            take(body, [10, 90, 140], **limits)
    with pytest.raises(TooLarge):
        take(b"x" * 101, [50], longest_line=100)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@example(b"[" * 100_000, [])
@example(b'{"key":"header","value":{"summary":"s"}}\n"x"', [])
@example(b'{"key":1e999,"value":{"path":"a"}}', [])
def test_garbage_raises_only_our_errors(body, cuts):
    for head in (b"", encoded(HEADER) + b"\n"):
        try:
            take(head + body, cuts)
        except RegistryError:
            pass
