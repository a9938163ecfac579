"""`.gitmodules` and other files that git reads from a checkout: what could attack a client is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import fsck
from registry.git.filenames import Severity, Special


def refused(findings):
    return {one.id for one in findings if one.severity is Severity.REFUSE}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[submodule "../x"]\npath = a\nurl = https://e.org/x', "gitmodulesName"),
        ('[submodule "a\\\\..\\\\b"]\npath = a', "gitmodulesName"),
        ('[submodule ""]\npath = a', "gitmodulesName"),
        ('[submodule "a"]\nurl = -u./payload', "gitmodulesUrl"),
        ('[submodule "a"]\nurl = "-u./payload"', "gitmodulesUrl"),
        ('[submodule "a"] url = \\"-u', None),
        ('[submodule "a"]\nurl = "https://e.org/\\nhost=evil"', "gitmodulesUrl"),
        ('[submodule "a"]\nurl = https://e.org/%0ahost=evil', "gitmodulesUrl"),
        ('[submodule "a"]\npath = -x', "gitmodulesPath"),
        ('[SUBMODULE "a"]\nPATH = -x', "gitmodulesPath"),
        ("[submodule.a]\npath = -x", "gitmodulesPath"),
        ('[submodule "a"]\npath = "x\r"', "gitmodulesPath"),
        ('[submodule "a"]\nupdate = !sh -c evil', "gitmodulesUpdate"),
        ('[submodule "a"]\nupdate = \\\n!sh', "gitmodulesUpdate"),
        ('[submodule "a"\npath = x', "gitmodulesParse"),
        ('[submodule "a"]\npath = "x', "gitmodulesParse"),
        (
            '# a comment\n[submodule "a"]\n\tpath = lib/a ; note\n\turl = ../a.git\n\tfetch\n[other]\n\tpath = -x\n',
            None,
        ),
        ("", None),
    ],
)
def test_gitmodules_that_attack_a_client_are_refused(text, key):
    found = fsck.check_special_blob(Special.MODULES, text.encode())
    assert refused(found) == ({key} if key else set())


def test_special_blobs_have_limits():
    assert refused(fsck.check_special_blob(Special.MODULES, b"#" * ((1 << 20) + 1))) == {"gitmodulesLarge"}
    assert refused(fsck.check_special_blob(Special.ATTRIBUTES, b"a" * 2048)) == {"gitattributesLineLength"}
    assert fsck.check_special_blob(Special.ATTRIBUTES, b"*.bin filter=lfs\n" * 1000) == []
    assert fsck.check_special_blob(Special.IGNORE, b"a" * 4096) == []


@given(st.text(alphabet='[]submodule "\\\n=.#;a!-', max_size=60))
def test_garbage_modules_are_judged_not_raised(text):
    fsck.check_special_blob(Special.MODULES, b'[submodule "a"]\n' + text.encode())
