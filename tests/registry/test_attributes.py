"""Paths are judged by `.gitattributes` and `.gitignore` as git itself judges them."""

import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.attributes import Attributes, Ignores
from registry.globs import TooCostly
from registry.starting import first_files

NAME = st.sampled_from(["a", "b", "ab", "a.bin", "b.bin", "x.tar.gz", "é", "[a]", "sub", "deep"])
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
GLOB = st.sampled_from(
    [
        "*",
        "**",
        "a",
        "b*",
        "*.bin",
        "?",
        "[ab]",
        "[!a]*",
        "[a-c].bin",
        "\\*",
        "a\\b",
        "[[:alpha:]]",
        "[]a]",
        "sub",
        "*a*",
    ]
)
PATTERN = st.builds(
    lambda lead, parts, tail: lead + "/".join(parts) + tail,
    st.sampled_from(["", "/", "**/"]),
    st.lists(GLOB, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**"]),
)
ATTRIBUTE_LINE = st.builds(
    "{} {}".format, PATTERN, st.sampled_from(["filter=lfs", "-filter", "!filter", "text", "filter=other", "filter"])
)
IGNORE_LINE = st.builds("{}{}".format, st.sampled_from(["", "", "!"]), PATTERN)
FOLDER = st.sampled_from(["", "sub", "sub/deep"])


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "sub" / "deep").mkdir(parents=True)
    return folder


def lay(repo, name, files):
    for folder in ("", "sub", "sub/deep"):
        path = repo / folder / name
        path.unlink(missing_ok=True)
        if folder in files:
            path.write_bytes(files[folder])


def git(repo, *args, data):
    done = subprocess.run(["git", "-c", "core.quotePath=false", *args], cwd=repo, input=data, capture_output=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@settings(max_examples=60)
@given(
    st.dictionaries(FOLDER, st.lists(ATTRIBUTE_LINE, max_size=4).map("\n".join).map(str.encode), max_size=3),
    st.lists(PATH, min_size=1, max_size=12, unique=True),
)
def test_attributes_are_those_that_git_finds(repo, files, paths):
    lay(repo, ".gitattributes", files)
    out = git(repo, "check-attr", "-z", "--stdin", "filter", data="\0".join(paths).encode() + b"\0")
    found = out.decode().split("\0")[2::3]
    ours = Attributes(files)
    shown = {True: "set", False: "unset", None: "unspecified"}
    values = [ours.get(path, "filter") for path in paths]
    assert [value if isinstance(value, str) else shown[value] for value in values] == found


@settings(max_examples=60)
@given(
    st.dictionaries(FOLDER, st.lists(IGNORE_LINE, max_size=4).map("\n".join).map(str.encode), max_size=3),
    st.lists(PATH, min_size=1, max_size=12, unique=True),
)
def test_ignored_is_what_git_ignores(repo, files, paths):
    lay(repo, ".gitignore", files)
    # Folders named like files would stand in git's way; a path through `sub` exists, the others need not.
    asked = [path for path in [*paths, "a"] if path not in ("sub", "sub/deep")]
    out = git(repo, "check-ignore", "-z", "--stdin", "--no-index", data="\0".join(asked).encode() + b"\0")
    ours = Ignores(files)
    assert [path for path in asked if ours.ignored(path)] == [one for one in out.decode().split("\0") if one]


def test_weights_go_to_lfs_by_default_and_text_does_not():
    attributes = Attributes({"": first_files("model")[".gitattributes"]})
    for path in ("model.safetensors", "a/b/c.gguf", "saved_model/x/y", "saved_model/y", "run/events.tfevents.1"):
        assert attributes.is_lfs(path) is True, path
    for path in ("README.md", "config.json", "tokenizer.json", "saved_models/x", "a.png"):
        assert attributes.is_lfs(path) is None, path
    assert Attributes({"": first_files("dataset")[".gitattributes"]}).is_lfs("a.png") is True


def test_the_last_line_and_the_nearest_file_win():
    files = {"": b"*.bin filter=lfs\nkeep.bin -filter\n", "sub": b"*.bin !filter\n"}
    attributes = Attributes(files)
    assert attributes.is_lfs("x.bin") is True
    assert attributes.is_lfs("keep.bin") is False
    assert attributes.is_lfs("sub/x.bin") is False
    assert attributes.get("sub/x.bin", "filter") is None


def test_a_quoted_pattern_may_hold_spaces():
    attributes = Attributes({"": b'"a b\\t\\303\\251.bin" filter=lfs\n"open filter=lfs\n'})
    assert attributes.is_lfs("a b\té.bin") is True
    assert attributes.is_lfs('"open') is True


def test_spaces_at_the_end_count_only_behind_a_backslash():
    ignores = Ignores({"": b"plain   \nkept\\ \n# comment\n\\#file\n\\!bang\r\n"})
    assert ignores.ignored("plain")
    assert ignores.ignored("kept ")
    assert ignores.ignored("#file")
    assert ignores.ignored("!bang")
    assert not ignores.ignored("# comment")


@given(st.binary(max_size=200), PATH)
@example(b"[", "a")
@example(b"[[:nope:]] filter=lfs", "a")
@example(b"a\\", "a")
def test_garbage_never_raises(content, path):
    Attributes({"": content}).is_lfs(path)
    Ignores({"": content}).ignored(path)


def test_many_hostile_patterns_end_in_a_refusal():
    rules = (b"*a" * 100 + b"*b filter=lfs\n") * 100
    attributes, ignores = Attributes({"": rules}, steps=100_000), Ignores({"": rules}, steps=100_000)
    with pytest.raises(TooCostly):
        [attributes.is_lfs("a" * 250) for _ in range(100)]
    with pytest.raises(TooCostly):
        [ignores.ignored("a" * 250) for _ in range(100)]


def test_a_thousand_files_against_a_thousand_lines_fit_the_budget():
    rules = b"".join(b"data/%d.bin filter=lfs\n*.x%d filter=lfs\n" % (number, number) for number in range(500))
    attributes = Attributes({"": rules})
    assert [number for number in range(1000) if attributes.is_lfs(f"data/{number}.bin")] == list(range(500))
