"""A hostile Hub client: every bad request is refused as the Hub says it, and the branch stays where it was."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clients.committing import HEAD, commit, file
from tests.clients.hostile import MIB, Site, refused, unharmed

pytestmark = pytest.mark.clients
OID = "ab" * 32


def tip(site: Site, repo: str) -> str:
    """Return where the default branch is."""
    return str(site.ask("GET", f"/api/models/{repo}").json()["sha"])


BAD_COMMITS: dict[str, list[object]] = {
    "nothing": [],
    "empty lines": [b"", b"", b""],
    "no header": [file("a")],
    "header last": [file("a"), HEAD],
    "two headers": [HEAD, HEAD, file("a")],
    "no json": [HEAD, b"{"],
    "not utf-8": [HEAD, b'{"key":"file","value":{"path":"\xff","content":"eA=="}}'],
    "a list": [HEAD, b"[]"],
    "deep": [HEAD, b"[" * 100_000],
    "a number of 10,000 digits": [HEAD, b'{"key":"file","value":{"path":' + b"9" * 10_000 + b"}}"],
    "no value": [HEAD, {"key": "file"}],
    "text value": [HEAD, {"key": "file", "value": "a"}],
    "unknown key": [HEAD, {"key": "symlink", "value": {"path": "a"}}],
    "list key": [HEAD, {"key": ["file"], "value": {"path": "a"}}],
    "no path": [HEAD, {"key": "file", "value": {"content": "eA=="}}],
    "number path": [HEAD, file(7)],
    "no content": [HEAD, {"key": "file", "value": {"path": "a"}}],
    "bad base64": [HEAD, file("a", "****")],
    "base64 cut": [HEAD, file("a", "eA=")],
    "base64 of not ascii": [HEAD, file("a", "é" * 4)],
    "base64 with lines": [HEAD, file("a", "eA==\neA==")],
    "unknown encoding": [HEAD, file("a", "x", "rot13")],
    "list encoding": [HEAD, file("a", "x", ["base64"])],
    "half surrogate": [HEAD, b'{"key":"file","value":{"path":"a","content":"\\ud800","encoding":"utf-8"}}'],
    "bad algo": [HEAD, {"key": "lfsFile", "value": {"path": "a", "algo": "md5", "oid": OID}}],
    "short oid": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": "ab", "size": 1}}],
    "path oid": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": "../" * 21 + "a", "size": 1}}],
    "upper-case oid": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": OID.upper(), "size": 1}}],
    "minus size": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": OID, "size": -1}}],
    "huge size": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": OID, "size": 2**63}}],
    "float size": [HEAD, {"key": "lfsFile", "value": {"path": "a", "oid": OID, "size": 1.5}}],
    "number summary": [{"key": "header", "value": {"summary": 7}}, file("a")],
    "long parent": [{"key": "header", "value": {"summary": "s", "parentCommit": "a" * 41}}, file("a")],
    "short parent": [{"key": "header", "value": {"summary": "s", "parentCommit": "abc"}}, file("a")],
    "no hex parent": [{"key": "header", "value": {"summary": "s", "parentCommit": "z" * 40}}, file("a")],
}


@pytest.mark.parametrize("name", BAD_COMMITS)
def test_lines_that_are_no_commit_are_refused(small_site: Site, small: str, name: str) -> None:
    answer = commit(small_site, small, *BAD_COMMITS[name])
    refused(answer, "hub", 412 if "parent" in name and answer.status_code == 412 else 400)


BAD_PATHS = ["", "/", "/etc/passwd", "../x", "a/../../x", "a/./b", ".", "..", "a//b", "a/", "a\\b", "..\\x", "a\x00b"]
BAD_PATHS += [
    "a\nb",
    ".git/config",
    ".GIT/x",
    "git~1/x",
    "x/.git",
    ".g\u200cit/x",
    ".git./x",
    "a/.git ",
    "x" * 5000,
]
BAD_PATHS += ["aux", "con.txt", "a:b", "n" * 300, "\u202e.git", "a?b", "a ", "a."]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:16]))
def test_paths_that_lead_elsewhere_are_a_422(site: Site, own: str, path: str) -> None:
    refused(commit(site, own, HEAD, file("good.txt"), file(path)), "hub", 422)
    line = {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": OID, "size": 1}}
    refused(commit(site, own, HEAD, line), "hub", 422)


def test_folders_and_files_do_not_share_a_name(small_site: Site, small: str) -> None:
    for one, other in (("a", "a/b"), ("a/b", "a"), ("A.txt", "a.TXT"), ("é", "e\u0301")):
        answer = commit(small_site, small, HEAD, file(one), file(other))
        assert answer.status_code in (200, 400, 409, 422)
        if answer.status_code == 200:
            squash = small_site.ask("GET", f"/api/models/{small}/tree/main?recursive=1").json()
            raise AssertionError(f"{one!r} and {other!r} were both taken: {[entry['path'] for entry in squash]}")


def test_commits_go_to_branches_that_exist(site: Site, own: str) -> None:
    sha = tip(site, own)
    assert site.ask("POST", f"/api/models/{own}/tag/main", json={"tag": "v1"}).status_code == 200
    for at in (sha, sha[:10], "v1", "refs%2Ftags%2Fv1"):
        answer = commit(site, own, HEAD, file("a"), at=at)
        assert answer.status_code in (400, 404), at
    for at in ("absent", "refs%2Fheads%2Fabsent", "a..b", "x.lock", "refs%2Finternal%2Fx", "main%2Fx", "%20"):
        answer = commit(site, own, HEAD, file("a"), at=at)
        assert answer.status_code in (400, 404), at
        refused(answer, "hub", answer.status_code, answer.headers.get("x-error-code"))
    stale = {"key": "header", "value": {"summary": "s", "parentCommit": "1" * 40}}
    refused(commit(site, own, stale, file("a")), "hub", 412)
    gone = {"key": "deletedFile", "value": {"path": "absent"}}
    refused(commit(site, own, HEAD, gone), "hub", 404, "EntryNotFound")
    lost = {"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": OID, "size": 1}}
    refused(commit(site, own, HEAD, lost), "hub", 400)
    assert site.ask("DELETE", f"/api/models/{own}/tag/v1").status_code == 200


def test_lines_beyond_the_limit_are_refused_in_little_memory(small_site: Site, small: str) -> None:
    def endless(begin: bytes) -> Iterator[bytes]:
        yield json.dumps(HEAD).encode() + b"\n" + begin
        for _ in range(120):
            yield b"A" * MIB

    with unharmed(small_site, growth=150 * MIB):
        for begin in (b'{"key":"file","value":{"path":"a","encoding":"base64","content":"', b"[", b""):
            try:
                address = f"/api/models/{small}/commit/main"
                refused(small_site.ask("POST", address, content=endless(begin)), "hub", 413)
            except httpx.TransportError:
                # The server stopped reading a body far beyond its limit.
                pass


BAD_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "-a",
    "a..b",
    "a--b",
    "a.git",
    "a.lock",
    "a.ipynb",
    "a ",
    "é",
    "a\x00",
    "n" * 97,
    "a\n",
    "%2e",
]


@pytest.mark.parametrize("name", [*BAD_NAMES, 7, None, ["a"], {}, True], ids=lambda name: repr(name)[:12])
def test_names_that_break_the_rules_are_refused(site: Site, name: object) -> None:
    for method, route, body in (
        ("POST", "create", {"name": name}),
        ("POST", "create", {"name": "fine", "organization": name or "x/y"}),
        ("DELETE", "delete", {"name": name}),
        ("POST", "move", {"fromRepo": "ann/absent", "toRepo": f"ann/{name}" if isinstance(name, str) else name}),
    ):
        answer = site.ask(method, f"/api/repos/{route}", json=body)
        assert answer.status_code in (400, 403, 404), answer.text
        refused(answer, "hub", answer.status_code, answer.headers.get("x-error-code"))


JSON_ROUTES = [
    ("POST", "/api/repos/create"),
    ("DELETE", "/api/repos/delete"),
    ("POST", "/api/repos/move"),
    ("PUT", "/api/models/{repo}/settings"),
    ("POST", "/api/models/{repo}/preupload/main"),
    ("POST", "/api/models/{repo}/tag/main"),
    ("POST", "/api/validate-yaml"),
]
BAD_JSON = [b"{", b"[]", b"1", b'"x"', b"\xff\xfe", b"nul", b'{"a":NaN}', b'{"name":"\\ud800"}', b'{"name":"a\\u0000"}']
BAD_JSON += [b"[" * 50_000, b'{"a":' + b"9" * 5000 + b"}", b"{}{}"]


@pytest.mark.parametrize(("method", "route"), JSON_ROUTES)
def test_bodies_that_are_no_json_object_are_a_400(site: Site, own: str, method: str, route: str) -> None:
    path = route.format(repo=own)
    for body in BAD_JSON:
        answer = site.ask(method, path, content=body, headers={"Content-Type": "application/json"})
        refused(answer, "hub", 400)
    answer = site.ask(method, path, content=b"{}", headers={"Content-Type": "text/html"})
    refused(answer, "hub", 400)
    large = site.ask(method, path, content=b" " * (8 * MIB + 1), headers={"Content-Type": "application/json"})
    refused(large, "hub", 413)


def test_fields_of_the_wrong_kind_are_a_400(site: Site, own: str) -> None:
    at = f"/api/models/{own}"
    cases = [
        ("PUT", f"{at}/settings", {"private": "yes"}),
        ("PUT", f"{at}/settings", {"visibility": "hidden"}),
        ("PUT", f"{at}/settings", {"gated": "maybe"}),
        ("PUT", f"{at}/settings", {"gated": ["auto"]}),
        ("POST", f"{at}/preupload/main", {"files": {}}),
        ("POST", f"{at}/preupload/main", {"files": [7]}),
        ("POST", f"{at}/preupload/main", {"files": [{"path": "a", "size": -1, "sample": ""}]}),
        ("POST", f"{at}/preupload/main", {"files": [{"path": "a", "size": 2**70, "sample": ""}]}),
        ("POST", f"{at}/preupload/main", {"files": [{"path": "a", "size": 1, "sample": "***"}]}),
        ("POST", f"{at}/branch/x", {"startingPoint": 7}),
        ("POST", f"{at}/branch/x", {"emptyBranch": "yes"}),
        ("POST", f"{at}/tag/main", {"tag": 7}),
        ("POST", f"{at}/tag/main", {"tag": "a b"}),
        ("POST", f"{at}/tag/main", {"tag": "../x"}),
        ("POST", f"{at}/branch/a..b", {}),
        ("POST", f"{at}/branch/refs%2Fpr%2F5", {}),
        ("POST", f"{at}/super-squash/main", {"message": 7}),
        ("POST", f"{at}/paths-info/main", {"paths": 7}),
        ("POST", "/api/validate-yaml", {"content": 7}),
        ("POST", "/api/repos/create", {"name": "fine", "type": "bucket"}),
        ("POST", "/api/repos/create", {"name": "fine", "files": [{"path": "a", "content": "*", "encoding": "base64"}]}),
    ]
    for method, path, body in cases:
        refused(site.ask(method, path, json=body), "hub", 400)
    many = [{"path": "a", "size": 1}] * 1001
    refused(site.ask("POST", f"{at}/preupload/main", json={"files": many}), "hub", 413)
    refused(site.ask("POST", f"{at}/paths-info/main", json={"paths": ["a"] * 10_001}), "hub", 413)


def test_what_is_not_there_says_what_is_missing(site: Site, own: str) -> None:
    at, sha = f"/api/models/{own}", tip(site, own)
    for path in (
        f"{at}/revision/absent",
        f"{at}/tree/absent",
        f"{at}/commits/{'1' * 40}",
        f"/{own}/resolve/v9/README.md",
    ):
        refused(site.ask("GET", path), "hub", 404, "RevisionNotFound")
    for path in (
        f"{at}/tree/main/absent",
        f"/{own}/resolve/main/absent",
        f"/{own}/raw/{sha}/a/b",
        f"/{own}/resolve/main/",
    ):
        answer = site.ask("GET", path)
        refused(answer, "hub", 404, "EntryNotFound")
        assert answer.headers["x-repo-commit"] == sha
    for path in (
        "/api/models/ann/absent",
        "/api/datasets/" + own,
        "/ann/absent/resolve/main/x",
    ):
        answer = site.ask("GET", path)
        assert answer.status_code == 400 or refused(answer, "hub", 404, "RepoNotFound")
    for query in ("limit=x", "limit=-1", "cursor=***", "cursor=AAAA", "limit=" + "9" * 30):
        refused(site.ask("GET", f"{at}/tree/main?{query}"), "hub", 400)
    for query in ("expand=nonsense", "limit=x", "cursor=***"):
        refused(site.ask("GET", f"/api/models?{query}"), "hub", 400)


RAW = [
    "..%2f..%2fetc/passwd",
    "%2e%2e/x",
    "a/%2e%2e/%2e%2e/x",
    "..",
    "%00",
    "a%00b",
    "%5c..%5cx",
    "a%0d%0aSet-Cookie:x",
    "//x",
]
DOUBLE = [
    "%252e%252e/x",
    "%252e%252e%252fetc",
    "%2500",
    "%25%32%65",
    "..;/x",
    "%c0%ae%c0%ae/x",
    "%ff",
    "%u002e",
    "%",
    "%zz",
]


@pytest.mark.parametrize("tail", [*RAW, *DOUBLE])
def test_tricks_with_raw_paths_lead_nowhere(site: Site, own: str, tail: str) -> None:
    for head in (f"/{own}/resolve/main/", f"/{own}/raw/main/", f"/api/models/{own}/tree/main/", f"/{own}/resolve/"):
        wire = http.client.HTTPConnection("127.0.0.1", site.house.port, timeout=20)
        wire.putrequest("GET", head + tail, skip_host=False)
        wire.putheader("Authorization", f"Bearer {site.tokens['owner']}")
        wire.endheaders()
        answer = wire.getresponse()
        body = answer.read()
        wire.close()
        assert answer.status in (400, 404, 422), (answer.status, body)
        assert answer.headers["x-request-id"]
        assert answer.headers["set-cookie"] is None
        assert b"root:" not in body


def test_wrong_verbs_and_unknown_routes_are_plain(site: Site, own: str) -> None:
    for method, path in (
        ("POST", f"/api/models/{own}"),
        ("DELETE", f"/api/models/{own}/tree/main"),
        ("PUT", f"/{own}/resolve/main/a"),
        ("GET", f"/api/models/{own}/commit/main"),
        ("PATCH", f"/api/models/{own}/branch/x"),
        ("GET", "/api/repos/create"),
    ):
        answer = site.ask(method, path)
        assert answer.status_code in (404, 405)
        assert answer.headers["x-request-id"]
    for path in ("/api/nope", "/nope", "/", f"/{own}/nope/main", "/v1/reconstructions/x", "/api/models/a/b/c/d/e"):
        answer = site.ask("GET", path)
        assert answer.status_code == 404, path
        assert "x-error-code" not in answer.headers
    for method in ("TRACE", "CONNECT", "BREW"):
        assert site.ask(method, f"/api/models/{own}").status_code in (400, 405)


def test_a_request_id_cannot_smuggle(small_site: Site) -> None:
    for sent in ("a\tb", "x" * 200, "a b", "<script>", "a;b=c", "\xe9", ""):
        answer = small_site.ask("GET", "/api/models/ann/absent", headers={"X-Request-Id": sent.encode("latin-1")})
        assert answer.headers["x-request-id"] != sent or not sent
        assert answer.headers["x-request-id"].isalnum()
    kept = small_site.ask("GET", "/api/models/ann/absent", headers={"X-Request-Id": "fine-1.2_3"})
    assert kept.headers["x-request-id"] == "fine-1.2_3"
    for host in ("evil.example/x", "a b", "", 'x"><script>'):
        answer = small_site.ask("POST", "/api/repos/create", json={"name": "taken"}, headers={"Host": host})
        assert "evil" not in answer.text
        assert "script" not in answer.text


POSTED = ["/api/repos/create", "/api/repos/move", "/api/validate-yaml", "/api/models/{}/preupload/main"]
POSTED += [
    "/api/models/{}/commit/main",
    "/api/models/{}/paths-info/main",
    "/api/models/{}/tag/main",
    "/api/telemetry/x",
]


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.dictionaries(
        st.sampled_from(
            ["name", "type", "path", "files", "paths", "content", "tag", "key", "value", "fromRepo", "toRepo"]
        ),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2),
        max_size=5,
    ).map(lambda thing: json.dumps(thing).encode())
)
def test_garbage_never_fails_the_server(small_site: Site, small: str, body: bytes) -> None:
    for route in POSTED:
        answer = small_site.ask("POST", route.format(small), content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500
    head = json.dumps(HEAD).encode() + b"\n"
    assert small_site.ask("POST", f"/api/models/{small}/commit/main", content=head + body + b"\nx").status_code < 500
