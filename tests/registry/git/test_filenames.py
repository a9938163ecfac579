"""What a name may be, with the spellings that other systems take for `.git` and its special files."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import fsck
from registry.git.filenames import Severity, Special, all_plain, check_name

SHA = b"\x11" * 20


DOT_GIT = [
    ".git",
    ".GIT",
    ".Git",
    "git~1",
    "GIT~1",
    "git~3",
    ".git ",
    ".git.",
    ".git . .",
    "git~1.",
    ".git::$INDEX_ALLOCATION",
    ".git:stream",
    "git~1 :x",
    ".g\u200cit",
    ".gi\u200dt",
    "\u200e.git",
    ".git\u200f",
    ".g\u202ait",
    ".g\u202eIt",
    ".g\u206ait",
    ".gi\u206ft",
    "\ufeff.git",
    ".g\u200cit.",
    "a\\.git",
    "a\\git~1\\b",
    ".git\\config",
]


def refused(findings):
    return {one.id for one in findings if one.severity is Severity.REFUSE}


def portable(findings):
    return {one.id for one in findings if one.severity is Severity.PORTABLE}


def warned(findings):
    return {one.id for one in findings if one.severity is Severity.WARN}


def tree(*entries):
    return b"".join(mode + b" " + name + b"\0" + SHA for mode, name in entries)


@pytest.mark.parametrize("name", DOT_GIT)
def test_every_spelling_of_dot_git_is_refused(name):
    assert "hasDotgit" in refused(fsck.check_tree(tree((b"40000", name.encode()))))
    assert "hasDotgit" in refused(fsck.check_path(f"folder/{name}/config"))


@pytest.mark.parametrize("name", [".github", ".gitkeep", "git", "git~10", ".gitx", "x.git", "git~a", ".gi"])
def test_names_that_only_resemble_dot_git_pass(name):
    assert not fsck.check_tree(tree((b"40000", name.encode())))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"", "emptyName"),
        (b".", "hasDot"),
        (b"..", "hasDotdot"),
        (b"a/b", "fullPathname"),
        (b"/", "fullPathname"),
        (b"..\\x", "backslashInName"),
        (b"a\\b", "backslashInName"),
    ],
)
def test_names_that_leave_their_folder_are_refused(name, key):
    assert key in refused(fsck.check_tree(tree((b"100644", name))))


@pytest.mark.parametrize(
    "name",
    [
        "aux",
        "CON",
        "con.txt",
        "NUL",
        "prn .x",
        "COM1",
        "com9.tar.gz",
        "LPT0",
        "lpt¹",
        "COM²",
        "CONIN$",
        "conout$",
        "aux:x",
    ],
)
def test_devices_are_not_portable(name):
    assert "deviceName" in portable(fsck.check_path(name))


@pytest.mark.parametrize("name", ["auxiliary", "console.txt", "com10", "LPTX", "null", "xaux", "com"])
def test_names_near_devices_pass(name):
    assert fsck.check_path(name) == []


@pytest.mark.parametrize("name", ["a.", "a ", "a<", "b>", 'c"', "d|", "e?", "f*", "g:h", "h\x01", "i\x1f", "j\x7f"])
def test_names_that_windows_cannot_hold_are_not_portable(name):
    assert portable(fsck.check_path(name))
    assert not refused(fsck.check_path(name))


@pytest.mark.parametrize(
    "names",
    [
        (b"A", b"a"),
        ("É".encode(), "é".encode()),
        ("e\u0301".encode(), "é".encode()),
        (b"STRASSE", "straße".encode()),
    ],
)
def test_names_that_collide_without_case_or_normal_form(names):
    found = fsck.check_tree(tree(*((b"100644", name) for name in sorted(names))))
    assert portable(found) == {"collidingNames"}


def test_a_name_that_is_not_utf8_is_told():
    assert warned(fsck.check_tree(tree((b"100644", b"\xff")))) == {"nameNotUtf8"}


@pytest.mark.parametrize(
    ("name", "special"),
    [
        (".gitmodules", Special.MODULES),
        (".GitModules", Special.MODULES),
        (".gitmodules ", Special.MODULES),
        (".gitmodules . :x", Special.MODULES),
        ("gitmod~1", Special.MODULES),
        ("GITMOD~4", Special.MODULES),
        ("gi7eba~1", Special.MODULES),
        ("gi7eb~10", Special.MODULES),
        ("GI7EBA~9 .", Special.MODULES),
        (".git\u200cmodules", Special.MODULES),
        ("gi7d29~1", Special.ATTRIBUTES),
        ("gitatt~2", Special.ATTRIBUTES),
        ("gi250a~1", Special.IGNORE),
        ("gitign~1", Special.IGNORE),
        ("maba30~1", Special.MAILMAP),
        ("mailma~1", Special.MAILMAP),
        (".mailmap.", Special.MAILMAP),
        ("gitmod~5", None),
        ("gitmodules", None),
        ("gi7eba~0", None),
        ("gi7eba~", None),
        ("gi7ebb~1", None),
        (".gitmodulesx", None),
    ],
)
def test_special_files_are_known_in_disguise(name, special):
    assert check_name(name.encode()).special is special


@pytest.mark.parametrize("name", [b".gitmodules", b"gitmod~1", b"GI7EBA~1", ".gitm\u200codules".encode()])
def test_gitmodules_is_neither_link_nor_folder(name):
    assert "gitmodulesSymlink" in refused(fsck.check_tree(tree((b"120000", name))))
    assert "gitmodulesBlob" in refused(fsck.check_tree(tree((b"40000", name))))
    assert "gitmodulesBlob" in refused(fsck.check_tree(tree((b"160000", name))))


def test_what_git_refuses_is_refused(tmp_path):
    """Git's own fsck is the second judge: each tree that it calls an error must be refused here."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    names = [*DOT_GIT, ".gitmodules", "gitmod~1", "gi7eba~1", ".", "..", "a/b", "x", "git~2", ".gitmodules:x"]
    trees = {}
    for mode in (b"120000", b"40000", b"100600", b"040000"):
        for name in names:
            data = tree((mode, name.encode()))
            done = subprocess.run(
                ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
                cwd=tmp_path,
                input=data,
                capture_output=True,
                check=True,
            )
            trees[done.stdout.decode().strip()] = data
    judged = subprocess.run(
        ["git", "fsck", "--strict", "--no-dangling"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    errors = [line for line in judged.stderr.splitlines() if line.startswith("error in tree")]
    bad = {line.split()[3].rstrip(":") for line in errors if "broken links" not in line}
    assert len(bad) > 20
    for sha in bad:
        assert refused(fsck.check_tree(trees[sha])), trees[sha]


@given(
    st.lists(
        st.binary(max_size=6) | st.sampled_from([b"aux", b"a\nb", b"COM1.x", b".git", b"a.", b"ok-1.bin"]), max_size=5
    )
)
def test_the_quick_judgement_agrees_with_the_careful_one(names):
    if all_plain(names):
        for name in names:
            assert check_name(name) == ((), None, name.decode().lower())


@given(st.text(alphabet="abcx019._-+~ ", min_size=1, max_size=9))
def test_the_careful_judgement_agrees_with_the_quick_one(name):
    verdict = check_name(name.encode())
    if not verdict.findings and not verdict.special and name[0] not in ".-+" and not set(name) & set("~ "):
        assert all_plain([name.encode()])


def test_quick_judgement_of_plain_and_other_names():
    assert all_plain([b"model-00001-of-00002.safetensors", b"README.md", b"a" * 255])
    assert not any(
        all_plain([b"ok", name]) for name in (b"aux", b"NUL.txt", b"lpt1", b"a\nb", b"", b".x", b"a.", b"a" * 256)
    )
