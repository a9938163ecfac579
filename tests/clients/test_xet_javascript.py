"""@huggingface/hub, which cuts, packs and puts files together by itself, moves them by their chunks; or whole."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from pathlib import Path

import httpx
import pytest

from tests.clients import visitor
from tests.clients.javascript import visit
from tests.faults.proxy import Proxy
from tests.services.house import House

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
_numbers = itertools.count()

SIZE = 12 << 20


@pytest.fixture(
    params=[
        "small",
        pytest.param("large", marks=[pytest.mark.postgres, pytest.mark.s3, pytest.mark.xdist_group("large")]),
        pytest.param("ceph", marks=[pytest.mark.s3, pytest.mark.xdist_group("ceph")]),
    ]
)
def house(request: pytest.FixtureRequest) -> House:
    """A registry on a folder, on a bucket that checks nothing, and on one that enforces hashes and ranges."""
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_files_go_and_come_back_and_an_edit_sends_what_changed(house: House, tmp_path: Path) -> None:
    data, repo = os.urandom(SIZE), f"ann/javascript-{next(_numbers)}"
    edited = data[:5_000_000] + os.urandom(100_000) + data[5_000_000:]
    spliced = edited[:7_000_000] + b"hello" + edited[7_000_010:]
    for name, content in {"m.bin": data, "edited.bin": edited, "config.json": b"{}"}.items():
        (tmp_path / name).write_bytes(content)
    with Proxy(house.port) as proxy:
        at = {"endpoint": proxy.url, "token": house.token, "repo": repo, "home": tmp_path}
        out = visit(
            """
            await hub.createRepo({ ...at, visibility: "private" });
            const file = (path, from = path) => ({ path, content: new Blob([readFileSync(from)]) });
            await hub.uploadFiles({ ...at, files: [file("m.bin"), file("config.json")] });
            const info = await hub.fileDownloadInfo({ ...at, path: "m.bin" });
            out.info = [info.size, info.etag, info.xet.hash];
            const blob = await hub.downloadFile({ ...at, path: "m.bin", xet: true });
            out.chunked = [blob.constructor.name, await summed(blob), await summed(blob.slice(3_000_000, 3_000_100))];
            const whole = await hub.downloadFile({ ...at, path: "m.bin", xet: false });
            out.whole = [whole.constructor.name, await summed(whole)];
            out.files = [];
            for await (const each of hub.listFiles(at)) out.files.push([each.path, each.xetHash]);
            """,
            **at,
        )
        hash = out["info"][2]  # type: ignore[index]
        assert out == {
            "info": [SIZE, f'"{sha256(data)}"', hash],
            "chunked": ["XetBlob", sha256(data), sha256(data[3_000_000:3_000_100])],
            "whole": ["WebBlob", sha256(data)],
            "files": [[".gitattributes", None], ["config.json", None], ["m.bin", hash]],
        }
        assert not [asked for asked in proxy.seen if asked.method == "PUT"], "it went whole"
        since = len(proxy.seen)
        out = visit(
            """
            await hub.uploadFile({ ...at, file: { path: "m.bin", content: new Blob([readFileSync("edited.bin")]) } });
            const blob = await hub.downloadFile({ ...at, path: "m.bin" });
            out.edited = await summed(blob);
            const edits = [{ start: 7_000_000, end: 7_000_010, content: new Blob(["hello"]) }];
            const splice = { operation: "edit", path: "m.bin", originalContent: blob, edits };
            await hub.commit({ ...at, title: "Splice", operations: [splice] });
            out.spliced = await summed(await hub.downloadFile({ ...at, path: "m.bin" }));
            """,
            **at,
        )
        assert out == {"edited": sha256(edited), "spliced": sha256(spliced)}
        assert sum(asked.up for asked in proxy.seen[since:]) < SIZE // 10
    bearer = {"authorization": f"Bearer {house.token}"}
    plain = httpx.get(f"{house.url}/{repo}/resolve/main/m.bin", headers=bearer, follow_redirects=True)
    assert sha256(plain.content) == sha256(spliced)


def test_what_python_sent_javascript_reads_and_edits(small_house: House, tmp_path: Path) -> None:
    # By its 2.17.5 a chunk may end at 8,128 bytes, by hf-xet from 8,192 on: 88 of 100 bytes are cut alike, and of these
    # ones the first chunk, which is all that it asks for.
    data, repo = random.Random(1).randbytes(6_000_000), f"ann/javascript-{next(_numbers)}"
    edited = data[:2_000_000] + b"a word" + data[2_000_000:]
    (tmp_path / "m.bin").write_bytes(data)
    (tmp_path / "edited.bin").write_bytes(edited)
    python = """
        import hashlib
        api.create_repo("{repo}", exist_ok=True)
        api.upload_file(repo_id="{repo}", path_in_repo="{name}", path_or_fileobj="{name}")
        """
    with Proxy(small_house.port) as proxy:
        at = {"endpoint": proxy.url, "token": small_house.token, "home": tmp_path}
        visitor.visit(python.format(repo=repo, name="m.bin"), **at)
        since = len(proxy.seen)
        out = visit(
            """
            out.sum = await summed(await hub.downloadFile({ ...at, path: "m.bin" }));
            const content = new Blob([readFileSync("edited.bin")]);
            await hub.uploadFile({ ...at, file: { path: "edited.bin", content } });
            """,
            repo=repo,
            **at,
        )
        assert out == {"sum": sha256(data)}
        assert sum(asked.up for asked in proxy.seen[since:]) < len(data) // 4
        back = f'import hashlib\nout["sum"] = hashlib.sha256(content("edited.bin", "{repo}")).hexdigest()'
        assert visitor.visit(back, **at) == {"sum": sha256(edited)}


def test_who_turns_xet_off_sends_whole_files_and_parts(small_house: House, tmp_path: Path) -> None:
    repo = f"ann/javascript-{next(_numbers)}"
    for name, size in {"one.bin": 2_000_000, "parts.bin": 9 << 20}.items():
        (tmp_path / name).write_bytes(os.urandom(size))
    with Proxy(small_house.port) as proxy:
        out = visit(
            """
            await hub.createRepo(at);
            for (const path of ["one.bin", "parts.bin"]) {
                const content = new Blob([readFileSync(path)]);
                await hub.uploadFile({ ...at, useXet: false, file: { path, content } });
                out[path] = (await summed(await hub.downloadFile({ ...at, path }))) === (await summed(content));
            }
            """,
            endpoint=proxy.url,
            token=small_house.token,
            repo=repo,
            home=tmp_path,
        )
    assert out == {"one.bin": True, "parts.bin": True}
    assert proxy.asked("POST", "/xet/") == []
    assert [len(proxy.asked("PUT", way)) for way in ("/lfs/o/", "/lfs/part/")] == [1, 2]
