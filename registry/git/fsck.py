"""What commits, tags, trees, special files, paths and ref names may be; pure rules over raw bytes.

Our own parsers, because those made for reading history accept much that git refuses to receive. Every rule has an
id, git's own where git has the rule. Three severities: refuse, refuse by the portable-name policy, warn.
Source: git-fsck "FSCK MESSAGES", git-check-ref-format, gitformat-commit as `git cat-file` prints it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from registry.git.filenames import Finding, Severity, Special, check_name, show
from registry.git.gitmodules import check_gitmodules

LONGEST_PATH = 4096
DEEPEST_PATH = 128
LONGEST_REF = 255
LONGEST_LINK = 4096
MOST_ENTRIES = 1_000_000
LARGEST_ATTRIBUTES = 100 << 20
LONGEST_ATTRIBUTES_LINE = 2048
MODES = frozenset({b"100644", b"100755", b"120000", b"40000", b"160000", b"100664"})
TREE_MODE, LINK_MODE, COMMIT_MODE = b"40000", b"120000", b"160000"

Entry = tuple[bytes, bytes, bytes]
"""Mode as written, name, raw id."""

_ENTRY = re.compile(rb"([0-7]{1,7}+) ([^\0]*+)\0(.{20})", re.S)
_TREE = re.compile(rb"(?:[0-7]{1,7}+ [^\0]*+\0.{20})*+", re.S)
_HEX = re.compile(rb"[0-9a-f]{40}")
_IDENT = re.compile(rb"[^<>\n]* <[^<>\n]*> (0|[1-9][0-9]*) [+-][0-9]{4}")
_REF_REFUSED = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_SYMLINK_IDS = {
    Special.MODULES: ("gitmodulesSymlink", Severity.REFUSE),
    Special.ATTRIBUTES: ("gitattributesSymlink", Severity.WARN),
    Special.IGNORE: ("gitignoreSymlink", Severity.WARN),
    Special.MAILMAP: ("mailmapSymlink", Severity.WARN),
}
_BLOB_IDS = {Special.MODULES: "gitmodulesBlob", Special.ATTRIBUTES: "gitattributesBlob"}


class CommitFacts(NamedTuple):
    """What a well-formed commit says; ids are raw."""

    tree: bytes
    parents: tuple[bytes, ...]
    time: int


class TagFacts(NamedTuple):
    """What a well-formed annotated tag says; `type` is the kind of object it claims to name."""

    target: bytes
    type: bytes
    time: int


def check_object(kind: bytes, data: bytes) -> list[Finding]:
    """Judge the content of an object by itself; `kind` is b"commit", b"tree", b"tag" or b"blob"."""
    if kind == b"commit":
        return read_commit(data)[1]
    if kind == b"tag":
        return read_tag(data)[1]
    return check_tree(data) if kind == b"tree" else []


def _refuse(key: str, text: str) -> Finding:
    return Finding(key, Severity.REFUSE, text)


# Commits and tags


def read_commit(data: bytes) -> tuple[CommitFacts | None, list[Finding]]:
    """Parse a commit; facts are None if a finding keeps them from being known."""
    head, found = _headers(data)
    lines = head.split(b"\n")
    tree, parents = lines[0].removeprefix(b"tree "), []
    if not lines[0].startswith(b"tree "):
        return None, [*found, _refuse("missingTree", "a commit begins with its tree")]
    at = 1
    while at < len(lines) and lines[at].startswith(b"parent "):
        parents.append(lines[at][7:])
        at += 1
    found += [_refuse("badTreeSha1", "bad tree id")] if not _HEX.fullmatch(tree) else []
    found += [_refuse("badParentSha1", "bad parent id") for one in parents if not _HEX.fullmatch(one)]
    author, at = _person(lines, at, b"author ", "missingAuthor")
    committer, at = _person(lines, at, b"committer ", "missingCommitter")
    found += [*author, *committer, *_repeated(lines[at:])]
    if b"\0" in data[len(head) :]:
        found.append(Finding("nulInCommit", Severity.WARN, "NUL in the message"))
    if any(one.severity is Severity.REFUSE for one in found):
        return None, found
    ids = tuple(bytes.fromhex(one.decode()) for one in parents)
    return CommitFacts(bytes.fromhex(tree.decode()), ids, _time(lines[at - 1])), found


def read_tag(data: bytes) -> tuple[TagFacts | None, list[Finding]]:
    """Parse an annotated tag; facts are None if a finding keeps them from being known."""
    head, found = _headers(data)
    lines = [*head.split(b"\n"), b"", b"", b""]
    wanted = ((b"object ", "missingObject"), (b"type ", "missingTypeEntry"), (b"tag ", "missingTagEntry"))
    for (word, key), line in zip(wanted, lines, strict=False):
        if not line.startswith(word):
            return None, [*found, _refuse(key, f"a tag needs a line '{word.decode()}…' here")]
    target, kind, name = lines[0][7:], lines[1][5:], lines[2][4:]
    found += [_refuse("badObjectSha1", "bad object id")] if not _HEX.fullmatch(target) else []
    if kind not in (b"commit", b"tree", b"blob", b"tag"):
        found.append(_refuse("badType", f"a tag cannot name a {show(kind)!r}"))
    if check_ref_name(b"refs/tags/" + name):
        found.append(Finding("badTagName", Severity.WARN, f"odd tag name {show(name)!r}"))
    if lines[3].startswith(b"tagger "):
        found += _person(lines, 3, b"tagger ", "missingTagger")[0]
    else:
        found.append(Finding("missingTaggerEntry", Severity.WARN, "no tagger"))
    if any(one.severity is Severity.REFUSE for one in found):
        return None, found
    return TagFacts(bytes.fromhex(target.decode()), kind, _time(lines[3])), found


def _headers(data: bytes) -> tuple[bytes, list[Finding]]:
    """Cut the header lines off; without an empty line they must end the object."""
    head, blank, _ = data.partition(b"\n\n")
    if b"\0" in head:
        return head, [_refuse("nulInHeader", "NUL in the header")]
    if not blank and not data.endswith(b"\n"):
        return head, [_refuse("unterminatedHeader", "the header has no end")]
    return head.removesuffix(b"\n"), []


def _person(lines: Sequence[bytes], at: int, word: bytes, missing: str) -> tuple[list[Finding], int]:
    """Judge one author, committer or tagger line; give the place after all lines of that kind."""
    start = at
    while at < len(lines) and lines[at].startswith(word):
        at += 1
    who = word.decode().strip()
    if at == start:
        return [_refuse(missing, f"no {who} where one belongs")], at
    found = [_refuse(f"multiple{who.capitalize()}s", f"more than one {who}")] if at - start > 1 else []
    key = _identity(lines[start][len(word) :])
    return [*found, _refuse(key, f"bad {who} line: {show(lines[start])!r}")] if key else found, at


def _identity(text: bytes) -> str | None:
    """Name the rule that `name <mail> seconds zone` breaks."""
    good = _IDENT.fullmatch(text)
    if good:
        return "badDateOverflow" if len(good[1]) > 19 or int(good[1]) >= 1 << 63 else None
    if text.startswith(b"<"):
        return "missingNameBeforeEmail"
    name, angle, rest = text.partition(b"<")
    if b">" in name:
        return "badName"
    if not angle:
        return "missingEmail"
    if not name.endswith(b" "):
        return "missingSpaceBeforeEmail"
    mail, closing, rest = rest.partition(b">")
    if not closing or b"<" in mail:
        return "badEmail"
    if not rest.startswith(b" "):
        return "missingSpaceBeforeDate"
    date, _, _ = rest[1:].partition(b" ")
    if date.startswith(b"0") and date != b"0":
        return "zeroPaddedDate"
    return "badTimezone" if date.isdigit() else "badDate"


def _repeated(lines: Iterable[bytes]) -> Iterator[Finding]:
    for line in lines:
        if line.startswith((b"tree ", b"parent ", b"author ", b"committer ")):
            yield _refuse("headerOutOfPlace", f"misplaced or repeated line {show(line)!r}")


def _time(line: bytes) -> int:
    found = _IDENT.search(line)
    return int(found[1]) if found else 0


# Trees


def check_tree(data: bytes) -> list[Finding]:
    """Judge a tree by itself: form, order, modes, names, collisions."""
    entries = parse_tree(data)
    if entries is None:
        return [_refuse("badTree", "the tree cannot be parsed")]
    return [*check_shape(entries), *(found for entry in entries for found in check_entry(entry))]


def parse_tree(data: bytes) -> list[Entry] | None:
    """Split a tree into entries; None if it is no tree. Linear in time, whatever the bytes."""
    if _TREE.fullmatch(data) is None:
        return None
    entries: list[Entry] = _ENTRY.findall(data)
    return entries


def check_shape(entries: Sequence[Entry]) -> list[Finding]:
    """Judge the entries of a tree together: their number, order, repeats, and names that collide elsewhere."""
    found = []
    if len(entries) > MOST_ENTRIES:
        found.append(_refuse("tooManyEntries", f"a tree of {len(entries)} entries; at most {MOST_ENTRIES} are taken"))
    names = [name for _, name, _ in entries]
    keys = [name + b"/" if mode == TREE_MODE else name for mode, name, _ in entries]
    if keys != sorted(keys):
        found.append(_refuse("treeNotSorted", "entries are not in order"))
    # The common case in one step: plain names that differ without case do not repeat either.
    if b"".join(names).isascii() and len(set(map(bytes.lower, names))) == len(names):
        return found
    if len(set(names)) != len(names):
        found.append(_refuse("duplicateEntries", f"two entries are named {show(_twice(names))!r}"))
    else:
        found += _collisions(names)
    return found


def _collisions(names: Sequence[bytes]) -> Iterator[Finding]:
    folded: dict[str, bytes] = {}
    for name in names:
        first = folded.setdefault(check_name(name).folded, name)
        if first != name:
            text = f"{show(first)!r} and {show(name)!r} are one file where case is ignored"
            yield Finding("collidingNames", Severity.PORTABLE, text)
            return


def _twice(names: Iterable[bytes]) -> bytes:
    return next(name for name, count in Counter(names).items() if count > 1)


def check_entry(entry: Entry) -> list[Finding]:
    """Judge one entry by itself: mode, id, name, and what special files must not be."""
    mode, name, sha = entry
    found = []
    if mode not in MODES:
        key = "zeroPaddedFilemode" if mode.startswith(b"0") else "badFilemode"
        found.append(_refuse(key, f"mode {mode.decode()} of {show(name)!r}"))
    if mode == b"100664":
        found.append(Finding("oldFilemode", Severity.WARN, f"mode 100664 of {show(name)!r}"))
    if not any(sha):
        found.append(_refuse("nullSha1", f"{show(name)!r} has the null id"))
    verdict = check_name(name)
    if verdict.special:
        found += _check_special(verdict.special, mode, name)
    return [*found, *verdict.findings]


def _check_special(special: Special, mode: bytes, name: bytes) -> Iterator[Finding]:
    if mode == LINK_MODE:
        key, severity = _SYMLINK_IDS[special]
        yield Finding(key, severity, f"{show(name)!r} is a symbolic link")
    elif mode in (TREE_MODE, COMMIT_MODE) and special in _BLOB_IDS:
        yield _refuse(_BLOB_IDS[special], f"{show(name)!r} is not a file")


# Blobs that git or a checkout gives a meaning


def check_special_blob(special: Special, data: bytes) -> list[Finding]:
    """Judge the content of a blob that some tree calls by a special name."""
    if special is Special.MODULES:
        return check_gitmodules(data)
    if special is not Special.ATTRIBUTES:
        return []
    if len(data) > LARGEST_ATTRIBUTES:
        return [_refuse("gitattributesLarge", f".gitattributes of {len(data)} bytes")]
    if any(len(line) >= LONGEST_ATTRIBUTES_LINE for line in data.split(b"\n")):
        return [
            _refuse("gitattributesLineLength", f".gitattributes: a line of {LONGEST_ATTRIBUTES_LINE} bytes or more")
        ]
    return []


def check_link(target: bytes) -> list[Finding]:
    """Judge the target of a symbolic link; links are never followed here, so leaving the tree is only told."""
    if len(target) > LONGEST_LINK:
        return [
            _refuse("symlinkTargetLength", f"a link target of {len(target)} bytes; at most {LONGEST_LINK} are taken")
        ]
    if b"\0" in target:
        return [_refuse("symlinkTargetNul", "NUL in a link target")]
    if target.startswith(b"/") or b".." in target.split(b"/"):
        return [Finding("symlinkPointsOutside", Severity.WARN, f"a link to {show(target)!r}")]
    return []


# Paths and refs


def check_path(path: str) -> list[Finding]:
    """Judge a whole path of a file, as the Hub commit API names it: the same rules as for trees of a push."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return [_refuse("pathNotUnicode", "the path is not valid Unicode")]
    parts = raw.split(b"/")
    found = [one for part in parts for one in check_name(part).findings]
    for part in parts[:-1]:
        special = check_name(part).special
        found += _check_special(special, TREE_MODE, part) if special else []
    if len(raw) > LONGEST_PATH:
        found.append(Finding("longPath", Severity.PORTABLE, f"a path of {len(raw)} bytes; at most {LONGEST_PATH} fit"))
    if raw.count(b"/") >= DEEPEST_PATH:
        found.append(_refuse("deepPath", f"a path of more than {DEEPEST_PATH} levels"))
    return found


def check_ref_name(name: bytes) -> str | None:
    """Tell why a full ref name is refused; None if it is well formed. Who may write it is asked elsewhere."""
    if not name.startswith(b"refs/") or name.count(b"/") < 2:
        return "funny refname"
    if len(name) > LONGEST_REF:
        return f"ref name above {LONGEST_REF} bytes"
    try:
        name.decode()
    except UnicodeDecodeError:
        return "ref name is not UTF-8"
    if _REF_REFUSED.search(name) or name.endswith((b"/", b".")):
        return "funny refname"
    if any(part.startswith(b".") or part.endswith(b".lock") for part in name.split(b"/")):
        return "funny refname"
    return None
