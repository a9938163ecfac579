"""A disk keeps what it acknowledged, refuses before it is full, and leaves no half of anything."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfs.errors import Damaged, Denied, Missing, NoSpace, Unavailable
from lfs.local import LocalStore
from lfs.store import lfs_key

BODY = b"weights" * 1000
OID = hashlib.sha256(BODY).hexdigest()
KEY = lfs_key(OID)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shelf"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, min_free=0)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_stored_file_lies_where_its_key_says_and_is_read_only(store: LocalStore, folder: Path) -> None:
    store.put(KEY, BODY, len(BODY), OID)
    assert files(folder) == [KEY]
    path = store.stat(KEY).path
    assert path == folder / KEY
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_write_below_the_floor_is_refused_before_its_first_byte(folder: Path) -> None:
    store = LocalStore(folder, min_free=1 << 60)

    def untouched() -> bytes:
        raise AssertionError("the source was read")

    with pytest.raises(NoSpace, match="WEIGHTROOM_MIN_FREE"):
        store.put(KEY, iter(untouched, None), len(BODY))
    with pytest.raises(NoSpace):
        store.parts(KEY, 1 << 20).put(1, b"x", 1)


def test_a_file_on_the_same_disk_is_adopted_without_a_copy(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "pack"
    source.write_bytes(BODY)
    inode = source.stat().st_ino
    store.put(KEY, source, len(BODY), OID)
    assert not source.exists()
    assert (folder / KEY).stat().st_ino == inode
    assert (folder / KEY).stat().st_mode & 0o777 == 0o444


def test_a_link_is_not_adopted(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(BODY)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store.put(KEY, tmp_path / "link", len(BODY), OID)
    assert (folder / KEY).read_bytes() == BODY
    assert not (folder / KEY).is_symlink()


def test_a_reader_is_not_disturbed_by_a_delete(store: LocalStore) -> None:
    store.put(KEY, BODY, len(BODY))
    with store.open(KEY) as reader:
        first = reader.read(10)
        store.delete(KEY)
        assert first + reader.read_all() == BODY
        reader.close()


def test_a_file_cut_short_is_damage_and_never_a_short_answer(store: LocalStore, folder: Path) -> None:
    store.put(KEY, BODY, len(BODY))
    with store.open(KEY) as reader:
        os.chmod(folder / KEY, 0o644)
        os.truncate(folder / KEY, 100)
        with pytest.raises(Damaged):
            reader.read_all()


@pytest.mark.parametrize(
    ("number", "refusal"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, Unavailable), (errno.EROFS, Denied)],
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_what_the_disk_refuses_is_named_and_leaves_nothing(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, refusal: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(refusal):
            store.put(KEY, BODY, len(BODY), OID)
    assert files(folder) == []
    store.put(KEY, BODY, len(BODY), OID)


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    """A process may write no file above 1 MiB: the kernel's own refusal, not a pretended one."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from lfs.local import LocalStore;"
        "from lfs.errors import NoSpace\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "store = LocalStore(Path(sys.argv[1]), min_free=0)\n"
        "try: store.put('lfs/x', bytes(3 << 20), 3 << 20)\n"
        "except NoSpace: print('no space', list(store.walk()), list((Path(sys.argv[1]) / 'tmp').iterdir()))"
    )
    told = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert told.stdout == "no space [] []\n", told.stderr


def test_bytes_and_folders_are_synced_before_success_is_told(tmp_path: Path) -> None:
    """The order that survives a power cut, read from the calls to the kernel: fsync, rename, fsync of the folder."""
    program = (
        "import os, sys; from pathlib import Path; from lfs.local import LocalStore\n"
        "store = LocalStore(Path(sys.argv[1]), min_free=0)\n"
        "store.put('lfs/ab/x', b'bytes', 5); os.write(2, b'acknowledged')"
    )
    log = tmp_path / "calls"
    trace = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename,write,mkdir"]
    done = subprocess.run(
        [*trace, sys.executable, "-c", program, str(tmp_path / "shelf")], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    calls = _named(log.read_text(), str(tmp_path / "shelf"))
    assert calls[calls.index("write tmp") :] == [
        "write tmp",
        "fsync tmp",
        "mkdir lfs",
        "mkdir lfs/ab",
        "rename lfs/ab/x",
        "fsync lfs/ab",
        "fsync lfs",
        "fsync .",
        "acknowledged",
    ]


@pytest.mark.faults
@pytest.mark.parametrize("call", ["mkdir", "write", "fchmod", "fsync", "rename"])
def test_a_writer_that_is_killed_at_any_step_leaves_all_or_nothing(tmp_path: Path, call: str) -> None:
    program = (
        "import sys; from pathlib import Path; from lfs.local import LocalStore\n"
        "store = LocalStore(Path(sys.argv[1]), min_free=0)\n"
        "store.put('lfs/ab/x', b'bytes', 5); print('acknowledged')"
    )
    for folder in killed_at_every(call, program, tmp_path):
        again = LocalStore(folder, min_free=0)
        assert list(again.walk()) in ([], ["lfs/ab/x"])
        again.put("lfs/ab/x", b"bytes", 5)
        again.sweep(-1)
        assert files(folder) == ["lfs/ab/x"]
        assert (folder / "lfs/ab/x").read_bytes() == b"bytes"


def test_what_a_crash_left_is_swept_and_what_is_young_is_not(store: LocalStore, folder: Path) -> None:
    (folder / "tmp" / "left").write_bytes(b"half")
    store.parts(KEY, 1 << 20).put(1, b"part", 4)
    assert store.sweep(3600) == 0
    for path in (folder / "tmp").rglob("*"):
        os.utime(path, (1, 1))
    assert store.sweep(3600) == 2
    assert files(folder) == []


def test_a_copy_is_a_link_where_the_disk_has_links(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    store.put(KEY, BODY, len(BODY))
    linked = store.copy(KEY, "lfs/linked").path
    monkeypatch.setattr(os, "link", refuse)
    copied = store.copy(KEY, "lfs/copied").path
    assert linked is not None
    assert copied is not None
    assert linked.stat().st_ino == (folder / KEY).stat().st_ino != copied.stat().st_ino
    assert copied.read_bytes() == BODY


def test_a_folder_is_no_object(store: LocalStore) -> None:
    store.put(KEY, BODY, len(BODY))
    with pytest.raises(Missing):
        store.stat("lfs")
    with pytest.raises(Missing):
        store.open(KEY + "/x")


def killed_at_every(call: str, program: str, folder: Path) -> Iterator[Path]:
    """Run a program on a new folder, killed before the n-th `call` to the kernel, for every n until it gets through.

    Yields the folder after each death. The program prints `acknowledged` at its end, and takes the folder.
    """
    for step in range(1, 60):
        at = folder / str(step)
        trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        trace += ["-e", f"inject={call}:signal=SIGKILL:when={step}"]
        done = subprocess.run(
            [*trace, sys.executable, "-c", program, str(at)], capture_output=True, text=True, check=False
        )
        if "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
        if "acknowledged" in done.stdout:
            # A write to the pipe is a call as well: the last death may come after the work was done.
            assert step > 1
            return
        yield at
    raise AssertionError("the program never got through")


def _named(log: str, shelf: str) -> list[str]:
    """Shorten strace lines to what was done where."""
    calls = []
    for line in log.splitlines():
        if "acknowledged" in line:
            calls.append("acknowledged")
        elif shelf in line and (call := re.search(r"(fsync|rename|write|mkdir)\(", line)):
            path = re.findall(re.escape(shelf) + r"([^\">]*)", line)[-1].strip("/")
            calls.append(f"{call[1]} {'tmp' if path.startswith('tmp/') else path or '.'}")
    return calls
