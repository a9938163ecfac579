"""Names of models and paths of files: what is meant is read, and what could reach out of a folder is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import ModelAbsent, ModelRefused
from inference.names import ModelName, check_path, folded, parse

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt2", ModelName("gpt2")),
        ("acme/tiny", ModelName("acme/tiny")),
        ("acme/tiny@main", ModelName("acme/tiny", "main")),
        ("acme/tiny@refs/pr/7", ModelName("acme/tiny", "refs/pr/7")),
        (f"acme/tiny@{SHA}", ModelName("acme/tiny", SHA)),
        ("acme/tiny:q4.gguf", ModelName("acme/tiny", None, "q4.gguf")),
        ("acme/tiny@v1.0:acme/lora@main", ModelName("acme/tiny", "v1.0", "acme/lora@main")),
    ],
)
def test_names_are_read(text: str, name: ModelName) -> None:
    assert parse(text) == name
    assert name.is_fixed == (name.revision == SHA)


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/a", "a/b/c", "a b", "../etc", "acme/..", "acme/tiny@", "acme/tiny:", "acme/tiny@..", "a/b@-x",
     "acme/tiny@a..b", "acme/tiny:../x", "a/b\n", "a/b@m\x00", "http://evil/x", "a/b?x=1", "a/b#c", "a" * 97, "ä/b"],
)  # fmt: skip
def test_what_no_model_can_be_called_is_absent(text: str) -> None:
    with pytest.raises(ModelAbsent):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_absent(text: str) -> None:
    try:
        name = parse(text)
    except ModelAbsent:
        return
    whole = name.repo + (f"@{name.revision}" if name.revision else "") + (f":{name.extra}" if name.extra else "")
    assert whole == text


@pytest.mark.parametrize("path", ["config.json", "1_Pooling/config.json", "onnx/model.onnx", "a b.txt", "größe.json"])
def test_plain_paths_pass(path: str) -> None:
    assert check_path(path) == path


HOSTILE = [
    "", "/etc/passwd", "..", "../x.json", "a/../x.json", "a//b.json", "a/", "./a.json", ".git/config", ".GIT/x.json",
    ".weightroom.json", "a/.hidden.json", "a\\b.json", "..\\x.json", "C:x.json", "a:stream.json", "CON.txt",
    "a/nul.json", "com1.txt", "a\x00.json", "a\n.json", "x.json ", "x.json.", "-rf.json", "a\u200c.json",
    "\u202egpj.json", "a\x7f.json", "a?.json", "a*.json", "a|b.json", 'a".json', "n" * 256 + ".json",
    "d/" * 20 + "x.json", "a" * 200 + "/" + "b" * 900, "x\udcff.json",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(ModelRefused):
        check_path(path)


@given(st.text(max_size=60))
def test_no_path_that_passes_leaves_its_folder(path: str) -> None:
    try:
        check_path(path)
    except ModelRefused:
        return
    assert not path.startswith("/")
    assert not any(part in ("", ".", "..") or part.startswith(".") for part in path.split("/"))
    assert "\\" not in path


def test_paths_that_one_file_system_sees_as_one_fold_together() -> None:
    assert folded("Model.JSON") == folded("model.json")
    assert folded("gr\u00f6\u00dfe.json") == folded("gro\u0308SSE.json")
