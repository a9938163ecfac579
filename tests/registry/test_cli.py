"""The command line: what a new server says and does, what each command prints, and with which status it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry import cli, logs, schema
from registry.access import Access
from registry.config import Config
from registry.db import Database, now
from registry.errors import BadToken
from registry.tables.repos import repos
from tests.services import postgres

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTROOM_")}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run with the data folder as the only setting."""
    for name in [name for name in os.environ if name.startswith("WEIGHTROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WEIGHTROOM_DATA", str(tmp_path / "data"))


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Database]:
    """The database that the commands write to."""
    database = Database(f"sqlite:///{tmp_path}/data/registry.db")
    yield database
    database.dispose()


def started(folder: Path, *flags: str, **settings: str) -> subprocess.Popen[str]:
    """Start a server in a folder with nothing set but what is given."""
    command = [sys.executable, "-m", "registry.cli", "serve", "--no-sidecar", *flags]
    environ = PLAIN | {f"WEIGHTROOM_{name}": value for name, value in settings.items()}
    return subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def until(process: subprocess.Popen[str], last: str) -> str:
    """Read what a server prints up to a line that begins with these words."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last):
            return "".join(lines)
    raise AssertionError(f"the server ended: {''.join(lines)} {process.communicate()[1]}")


def get(url: str, token: str = "") -> tuple[int, bytes]:
    """Ask until something answers, for at most 20 s."""
    deadline = time.monotonic() + 20
    while True:
        try:
            asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def stopped(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Stop a server; give its status and what it said on stderr."""
    process.send_signal(how)
    _, said = process.communicate(timeout=40)
    return process.returncode, said


def test_with_nothing_set_a_server_makes_its_house_and_says_how_to_enter(tmp_path: Path) -> None:
    process = started(tmp_path, "--port", "0")
    said = until(process, "Stop with")
    url = re.search(r"registry  (http://127\.0\.0\.1:\d+)", said)
    token = re.search(r"^  (hf_\w{40})$", said, re.MULTILINE)
    assert url
    assert token
    assert get(f"{url[1]}/health")[0] == 200
    assert json.loads(get(f"{url[1]}/ready")[1]) == {"ready": True, "problems": {}}
    assert json.loads(get(f"{url[1]}/api/whoami-v2", token[1])[1])["name"] == "admin"
    assert get(f"{url[1]}/api/whoami-v2", token[1][:-1] + "x")[0] == 401
    assert get(f"{url[1]}/nothing/at/all")[0] == 404
    assert b"weightroom_requests_total" in get(f"{url[1]}/metrics")[1]
    status, errors = stopped(process)
    assert status == 0, errors
    assert token[1] not in errors
    for line in errors.splitlines():
        assert {"at", "id", "path", "status"} <= set(json.loads(line))


def test_several_workers_serve_one_house_and_stop_together(tmp_path: Path) -> None:
    cli.main(["user", "create", "ann", "--data", str(tmp_path / "data")])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    many = started(tmp_path, "--port", port, "--workers", "2")
    # There is a user already, so no token is made and none shown.
    assert "hf_" not in until(many, "Stop with")
    assert get(f"http://127.0.0.1:{port}/health")[0] == 200
    assert stopped(many, signal.SIGINT)[0] == 0


def test_wrong_settings_are_listed_together_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PORT", "many"), ("PROT", "1"), ("STORAGE", "ftp://x")):
        monkeypatch.setenv(f"WEIGHTROOM_{name}", value)
    assert cli.main(["serve"]) == 2
    said = capsys.readouterr().err
    for name in ("WEIGHTROOM_PORT", "WEIGHTROOM_PROT", "WEIGHTROOM_STORAGE"):
        assert name in said
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_a_reason_to_try_again_and_makes_no_admin(
    rows: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What `serve` leaves in the environment and in the log is for its own process.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(logs, "to_stderr", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["serve", "--no-sidecar", "--port", str(taken.getsockname()[1])]) == 75
    assert "cannot listen" in capsys.readouterr().err
    with rows.read() as connection:
        # The first admin's token can be shown only once, so nobody is made while nothing can be shown.
        assert connection.exec_driver_sql("SELECT count(*) FROM users").scalar() == 0


@pytest.mark.postgres
def test_a_server_on_postgres_never_migrates_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with postgres.fresh_database(postgres.server()) as url:
        assert cli.main(["serve", "--no-sidecar", "--database", url]) == 2
        assert "weightroom migrate" in capfd.readouterr().err
        for command in (["user", "create", "ann"], ["fsck"]):
            assert cli.main([*command, "--database", url]) == 2
            assert "weightroom migrate" in capfd.readouterr().err
        assert cli.main(["migrate", "--database", url]) == 0
        assert f"empty → {schema.head()}" in capfd.readouterr().out
        assert cli.main(["user", "create", "ann", "--database", url]) == 0
        assert cli.main(["token", "create", "ann", "--database", url]) == 0


def test_a_new_token_is_all_that_is_printed(rows: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["user", "create", "ann", "--admin", "--full-name", "Ann Lee"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["token", "create", "ann", "--role", "admin", "--label", "laptop"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"hf_\w{40}\n", out)
    assert Access(rows).actor(out.strip()).superuser
    assert cli.main(["token", "list", "ann"]) == 0
    listed = capsys.readouterr().out
    assert listed.endswith("laptop\n")
    assert cli.main(["token", "revoke", "ann", listed.split("\t")[0]]) == 0
    with pytest.raises(BadToken):
        Access(rows).actor(out.strip())


def test_refusals_say_what_to_do_and_have_their_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["token", "create", "eve"]) == 3
    assert "weightroom user create eve" in capsys.readouterr().err
    assert cli.main(["user", "create", "ann"]) == 0
    assert cli.main(["user", "create", "Ann"]) == 3
    assert cli.main(["user", "create", "api"]) == 2
    assert cli.main(["token", "create", "ann", "--role", "admin"]) == 3
    assert cli.main(["org", "create", "lab", "--owner", "ann"]) == 0
    assert cli.main(["org", "add", "lab", "ann", "--role", "none"]) == 3
    with pytest.raises(SystemExit, match="2"):
        cli.main(["frobnicate"])


def test_members_come_and_go(rows: Database) -> None:
    for arguments in (
        ["user", "create", "ann"],
        ["user", "create", "bob"],
        ["org", "create", "lab", "--owner", "ann"],
        ["org", "add", "lab", "bob", "--role", "read"],
        ["org", "add", "lab", "bob", "--role", "admin"],
        ["org", "add", "lab", "ann", "--role", "none"],
    ):
        assert cli.main(arguments) == 0
    with rows.read() as connection:
        found = connection.exec_driver_sql("SELECT role FROM memberships").all()
    assert [row.role for row in found] == ["admin"]


def test_quotas_are_shown_and_set(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["user", "create", "ann"]) == 0
    assert cli.main(["org", "create", "lab", "--owner", "ann"]) == 0
    assert cli.main(["quota", "set", "lab", "1.5TB"]) == 2
    assert "'1.5TB' is not a size such as 1048576, 64MiB or 10 GiB, nor `none`" in capsys.readouterr().err
    assert cli.main(["quota", "set", "lab", "500GiB"]) == 0
    assert capsys.readouterr().out == "lab\t0 bytes\t0 bytes\t500 GiB\n"
    monkeypatch.setenv("WEIGHTROOM_QUOTA", "10GiB")
    assert cli.main(["quota", "show"]) == 0
    assert capsys.readouterr().out == "ann\t0 bytes\t0 bytes\t10 GiB\nlab\t0 bytes\t0 bytes\t500 GiB\n"
    monkeypatch.delenv("WEIGHTROOM_QUOTA")
    assert cli.main(["quota", "set", "lab", "none"]) == 0
    assert cli.main(["quota", "show", "LAB"]) == 0
    assert capsys.readouterr().out == "lab\t0 bytes\t0 bytes\tnone\n" * 2
    assert cli.main(["quota", "show", "nobody"]) == 3
    assert "There is no user or organisation nobody." in capsys.readouterr().err


def test_a_password_is_read_from_stdin(rows: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b"correct horse battery\n")
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["user", "create", "ann", "--password"]) == 0
    with rows.read() as connection:
        hashed = connection.exec_driver_sql("SELECT password_hash FROM users").scalar_one()
    assert hashed.startswith("$argon2id$")


def test_migrating_says_from_where_to_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["migrate"]) == 0
    assert capsys.readouterr().out == f"empty → {schema.head()}\n"
    assert cli.main(["migrate"]) == 0
    assert "already" in capsys.readouterr().out


def test_doctor_and_fsck_are_silent_about_a_house_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["migrate"])
    capsys.readouterr()
    for command in (["doctor", "--json"], ["fsck", "--json"], ["fsck", "--read-data"]):
        assert cli.main(command) == 0, capsys.readouterr().out
    assert capsys.readouterr().out == ""


def test_doctor_names_wrong_settings_and_an_old_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    sqlite3.connect(tmp_path / "data" / "registry.db").close()
    assert cli.main(["doctor"]) == 1
    assert "weightroom migrate" in capsys.readouterr().out
    monkeypatch.setenv("WEIGHTROOM_THREADS", "no")
    assert cli.main(["doctor", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["subject"] == "WEIGHTROOM_THREADS"


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for command in ("migrate", "fsck", "serve"):
        assert cli.main([command, "--data", str(tmp_path / "file" / "data")]) == 2
        assert "wrong settings" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_a_reason_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    absent = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    assert cli.main(["migrate", "--database", absent]) == 75
    assert "try again" in capsys.readouterr().err


def test_a_repair_says_what_it_did_and_ends_well_if_nothing_is_left(
    rows: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["user", "create", "ann"])
    with rows.write() as connection:
        values = {"type": "model", "namespace_id": 1, "name": "one", "name_fold": "one", "lfs_bytes": 7}
        connection.execute(sa.insert(repos).values(values | {"created_at": now(), "updated_at": now()}))
    capsys.readouterr()
    assert cli.main(["fsck"]) == 1
    assert cli.main(["fsck", "--repair"]) == 0
    said = capsys.readouterr()
    assert "repaired: counted again: 0 bytes of LFS" in said.out
    assert "1 found, 1 repaired" in said.err
    assert cli.main(["fsck", "--repair", "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("to", "left", "shared", "said"),
    [
        ("file:/a", None, "/a", "local store)"),
        ("s3://a", None, None, "bucket)"),
        ("s3://a", "file:/b", "/b", "bucket, bytes move from the local store)"),
        ("file:///a", "s3://b", "/a", "local store, bytes move from the bucket)"),
    ],
)
def test_a_sidecar_shares_the_folder_that_has_bytes_and_the_greeting_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch, to: str, left: str | None, shared: str | None, said: str
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: object())
    config = Config(storage=to, storage_from=left)
    command = cli._sidecar(config, "http://x", {}) or []
    assert (command[command.index("--shared-store") + 1] if "--shared-store" in command else None) == shared
    assert cli._where(config).endswith(said)
