"""A hostile git client: whatever it sends is refused in git's own words, and the repo stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.git import pkt
from registry.git.packfile import BLOB, COMMIT, TREE
from registry.git.pkt import DELIM, FLUSH, PktReader
from tests.clients.hostile import RECEIVE, UPLOAD, ZERO, Site, refused
from tests.clients.pushing import EVIL, LS_REFS, create, line, turned_down
from tests.registry.git.pushed import MAIN, commit, one_commit, pack, sha, tree, whole

pytestmark = pytest.mark.clients


def errors_in(body: bytes) -> list[str]:
    """Return what the ERR packets of an answer say."""
    return [one[4:].decode() for one in PktReader([body]) if isinstance(one, bytes) and one.startswith(b"ERR ")]


BAD_LINES = [
    b"00zz",
    b"-001",
    b"0x10",
    b"    ",
    b"0003",
    b"0001",
    b"0002",
    b"fff1" + b"a" * 65517,
    b"ffff",
    b"\xff" * 4,
]


@pytest.mark.parametrize("body", BAD_LINES, ids=lambda body: repr(body[:4]))
@pytest.mark.parametrize("version", ["0", "2"])
def test_a_fetch_that_is_no_pkt_line_gets_an_err(small_site: Site, kept: str, body: bytes, version: str) -> None:
    answer = small_site.fetch(kept, body, Git_Protocol=f"version={version}")
    assert answer.status_code == 200
    assert errors_in(answer.content)


@pytest.mark.parametrize("body", BAD_LINES, ids=lambda body: repr(body[:4]))
def test_a_push_that_is_no_pkt_line_is_a_400(small_site: Site, kept: str, body: bytes) -> None:
    refused(small_site.push(kept, body), "git", 400)


WRONG_REQUESTS = {
    "unknown command": pkt.encode(b"command=rm-rf\n") + FLUSH,
    "no command": pkt.encode(b"agent=x\n") + FLUSH,
    "two commands": pkt.encode(b"command=ls-refs\n") * 2 + FLUSH,
    "unknown capability": pkt.encode(b"command=ls-refs\n") + pkt.encode(b"teleport=1\n") + FLUSH,
    "sha256": pkt.encode(b"command=ls-refs\n") + pkt.encode(b"object-format=sha256\n") + FLUSH,
    "unknown argument": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"gimme\n") + FLUSH,
    "short want": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"want abc\n") + FLUSH,
    "upper-case want": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"want " + b"A" * 40) + FLUSH,
    "absent want": pkt.encode(b"command=fetch\n")
    + DELIM
    + pkt.encode(b"want " + b"1" * 40)
    + pkt.encode(b"done")
    + FLUSH,
    "hidden ref": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"want-ref refs/internal/x") + FLUSH,
    "depth -1": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"deepen -1") + FLUSH,
    "endless depth": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"deepen " + b"9" * 5000) + FLUSH,
    "bad filter": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"filter combine:blob:none+x") + FLUSH,
    "packfile-uris": pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"packfile-uris https") + FLUSH,
    "bad object-info": pkt.encode(b"command=object-info\n") + DELIM + pkt.encode(b"oid zz") + FLUSH,
    "after its flush": LS_REFS + LS_REFS,
    "two delimiters": pkt.encode(b"command=ls-refs\n") + DELIM + DELIM + FLUSH,
    "no pkt at all": b"GET / HTTP/1.1",
}


@pytest.mark.parametrize("body", WRONG_REQUESTS.values(), ids=WRONG_REQUESTS)
def test_a_request_outside_the_protocol_gets_an_err(small_site: Site, kept: str, body: bytes) -> None:
    answer = small_site.fetch(kept, body)
    assert answer.status_code == 200
    assert errors_in(answer.content)


def test_nested_filters_are_bounded(small_site: Site, kept: str) -> None:
    spec = b"blob:none"
    while len(spec) < 30_000:
        spec = b"combine:" + spec.replace(b"%", b"%25").replace(b":", b"%3a") + b"+tree:0"
    body = pkt.encode(b"command=fetch\n") + DELIM + pkt.encode(b"filter " + spec[:60_000]) + FLUSH
    assert errors_in(small_site.fetch(kept, body).content)


def test_a_fetch_cut_anywhere_is_no_fetch(small_site: Site, kept: str) -> None:
    whole_answer = small_site.fetch(kept, LS_REFS).content
    assert b"refs/heads/main" in whole_answer
    for end in range(1, len(LS_REFS)):
        answer = small_site.fetch(kept, LS_REFS[:end])
        assert answer.status_code == 200
        assert errors_in(answer.content), end


def test_a_push_cut_anywhere_is_no_push(small_site: Site, kept: str) -> None:
    data, tip = one_commit((b"100644", b"a", b"x"))
    body = create(tip, data)
    for end in [*range(1, len(body) - 1, 3), *range(len(body) - 24, len(body))]:
        turned_down(small_site, kept, body[:end])


def test_the_probe_of_git_and_an_empty_body_change_nothing(small_site: Site, kept: str) -> None:
    for body in (b"0000", b""):
        assert small_site.push(kept, body).content == small_site.fetch(kept, body).content == b""


@pytest.mark.parametrize("service", [UPLOAD, RECEIVE])
def test_only_the_right_content_type_is_read(small_site: Site, kept: str, service: str) -> None:
    other = RECEIVE if service == UPLOAD else UPLOAD
    for kind in ("text/plain", "", f"application/x-{other}-request", f"application/x-{service}-result"):
        answer = small_site.ask("POST", f"/{kept}/{service}", content=b"0000", headers={"Content-Type": kind})
        refused(answer, "git", 415)


def test_only_smart_http_is_served(small_site: Site, kept: str) -> None:
    for query in ("", "?service=", "?service=git-upload-archive", "?service=git-upload-pack%00", "?Service=x"):
        refused(small_site.ask("GET", f"/{kept}/info/refs{query}"), "git", 403)
    for path in ("HEAD", "objects/info/packs", "objects/ab/" + "c" * 38, "objects/pack/pack-x.idx"):
        refused(small_site.ask("GET", f"/{kept}.git/{path}"), "git", 404)
    for path in ("git-upload-archive", "config", "refs/heads/main", "hooks/post-update"):
        assert small_site.ask("GET", f"/{kept}.git/{path}").status_code == 404


def test_wrong_verbs_are_refused_in_gits_words(small_site: Site, kept: str) -> None:
    for method, path in (("GET", UPLOAD), ("PUT", RECEIVE), ("DELETE", "info/refs"), ("POST", "HEAD")):
        answer = small_site.ask(method, f"/{kept}/{path}")
        assert answer.status_code == 405
        assert answer.headers["allow"]


HOSTILE_NAMES = [b".git", b".GIT", b"git~1", b"GIT~1", b"..", b".", b"a/b", b"a\\b", b"..\\x", b".git ", b".git."]
HOSTILE_NAMES += [b".git::$INDEX_ALLOCATION", b".gi\xe2\x80\x8ct", b".g\xe2\x80\x8dit", b"\xef\xbb\xbf.git", b"\\.git"]
HOSTILE_NAMES += [
    b"aux",
    b"CON.txt",
    b"nul ",
    b"com1",
    b"LPT9.bin",
    b"a:b",
    b"a\nb",
    b"tab\t",
    b"end.",
    b"end ",
    b"a" * 256,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: repr(name[:20]))
def test_hostile_names_never_enter(small_site: Site, kept: str, name: bytes) -> None:
    data, tip = one_commit((b"100644", name, b"x"))
    assert any("tree" in one for one in turned_down(small_site, kept, create(tip, data)))
    root = tree((b"40000", name, sha(TREE, tree((b"100644", b"f", sha(BLOB, b"x"))))))
    inner, top = tree((b"100644", b"f", sha(BLOB, b"x"))), commit(sha(TREE, root))
    data = pack(whole(BLOB, b"x"), whole(TREE, inner), whole(TREE, root), whole(COMMIT, top))
    turned_down(small_site, kept, create(sha(COMMIT, top).hex(), data))


def test_hostile_trees_never_enter(small_site: Site, kept: str) -> None:
    x = (b"100644", b"a", b"x")
    for files in (
        [(b"100644", b"b", b"x"), x],
        [x, x],
        [(b"0100644", b"a", b"x")],
        [(b"777", b"a", b"x")],
        [(b"120000", b".gitmodules", b"x")],
        [(b"100644", b"", b"x")],
        [(b"100644", b"A", b"x"), x],
        [(b"100644", b".gitmodules", b'[submodule "../x"]\n\tpath = a\n')],
        [(b"100644", b".gitmodules", b'[submodule "a"]\n\turl = -u./payload\n')],
    ):
        data, tip = one_commit(*files)
        turned_down(small_site, kept, create(tip, data))


def test_refs_to_what_is_not_there_are_refused(small_site: Site, kept: str) -> None:
    turned_down(small_site, kept, create("1" * 40, pack()))
    turned_down(small_site, kept, create("1" * 40, pack(whole(BLOB, b"x"))))
    turned_down(small_site, kept, create(sha(BLOB, b"x").hex(), pack(whole(BLOB, b"x"))))
    for top in (commit(b"\7" * 20), commit(sha(TREE, b""), b"\7" * 20)):
        turned_down(small_site, kept, create(sha(COMMIT, top).hex(), pack(whole(TREE, b""), whole(COMMIT, top))))


def test_stale_old_values_move_nothing(small_site: Site, kept: str) -> None:
    data, tip = one_commit((b"100644", b"a", b"x"))
    for old in ("1" * 40, ZERO):
        assert turned_down(small_site, kept, line(old, tip, MAIN) + FLUSH + data)[1].startswith("ng refs/heads/main ")
    for old in ("1" * 40, ZERO):
        turned_down(small_site, kept, line(old, ZERO, MAIN) + FLUSH)
    both = line(ZERO, tip, EVIL, b"report-status atomic") + line("1" * 40, tip, MAIN, b"") + FLUSH + data
    assert len(turned_down(small_site, kept, both)) == 3


BAD_REFS = [
    b"HEAD",
    b"main",
    b"refs/heads/",
    b"refs/heads/a b",
    b"refs/heads/a..b",
    b"refs/heads/.a",
    b"refs/heads/a.lock",
]
BAD_REFS += [
    b"refs/heads/a\x01",
    b"refs/heads/a~1",
    b"refs/heads/@{",
    b"refs/heads//a",
    b"refs/internal/x",
    b"refs/x/y",
]
BAD_REFS += [
    b"refs/heads/../../etc",
    b"refs/heads/\xff\xfe",
    b"refs/heads/" + b"n" * 300,
    b"refs/heads/main/x",
    b"refs",
]


@pytest.mark.parametrize("name", BAD_REFS, ids=lambda name: repr(name[:24]))
def test_funny_refs_are_refused_by_name(small_site: Site, kept: str, name: bytes) -> None:
    data, tip = one_commit((b"100644", b"a", b"x"))
    said = turned_down(small_site, kept, create(tip, data, name))
    assert said[0].startswith("unpack ")


def test_odd_commands_are_refused_whole(small_site: Site, kept: str) -> None:
    data, tip = one_commit((b"100644", b"a", b"x"))
    good = line(ZERO, tip, EVIL)
    many = b"".join(line(ZERO, tip, b"refs/heads/x%d" % n, b"") for n in range(10_001))
    for commands in (
        many,
        good + good,
        line(ZERO, tip, b"refs/heads/" + b"n" * 60_000),
        pkt.encode(b"push-cert\0report-status"),
        pkt.encode(b"hello"),
        pkt.encode(tip.encode() + b" " + tip.upper().encode() + b" refs/heads/x"),
        line(ZERO, tip, EVIL, b"report-status object-format=sha256"),
        line(ZERO, tip, EVIL, b"report-status push-options") + FLUSH + pkt.encode(b"o") * 65,
        line(ZERO, tip, EVIL, b"report-status push-options") + FLUSH + pkt.encode(b"o" * 2000),
    ):
        refused(small_site.push(kept, commands + FLUSH + data), "git", 400)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300) | st.binary(max_size=200).map(lambda data: pkt.encode(data) + FLUSH))
def test_garbage_never_fails_the_server(small_site: Site, kept: str, body: bytes) -> None:
    for version in ("0", "2"):
        assert small_site.fetch(kept, body, Git_Protocol=f"version={version}").status_code < 500
    for headers in ({}, {"Content_Encoding": "gzip"}):
        assert small_site.push(kept, body, **headers).status_code < 500
    data, tip = one_commit((b"100644", b"a", b"x"))
    assert small_site.push(kept, create(tip, body)).status_code < 500
    assert small_site.push(kept, create(tip, data[:12] + body + data[-20:])).status_code < 500
