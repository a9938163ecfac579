"""`weightroom gc` says what it does, for people and for programs, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import cli
from registry.commands.opening import AGAIN, FINDINGS, OK, REFUSED, USAGE
from registry.db import Database
from registry.upkeep.turn import turn
from tests.registry.upkeep.collecting import Collected, collected, oid_of

OLD, NEW = b"old" * 99, b"new" * 9999
SOON = [f"--grace-{name}=0h" for name in ("log", "link", "repo", "object", "trash", "pack", "key")]


@pytest.fixture
def house(sqlite_database: Database, tmp_path: Path) -> Iterator[Collected]:
    """A data folder whose repo was rewound."""
    made = collected(sqlite_database, tmp_path)
    made.push({"w.bin": OLD})
    made.push({"w.bin": NEW}, force=True)
    yield made
    made.gate.heavy.close()


def weightroom(house: Collected, *arguments: str) -> int:
    return cli.main(["gc", "--data", str(house.gate.folder), *arguments])


def test_a_dry_run_prints_what_the_run_prints(house: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    assert weightroom(house, "--dry-run", *SOON) == OK
    planned = capsys.readouterr()
    assert "unlink" in planned.out
    assert planned.err == "would go: unlink link: 1 (297 B)\n"
    assert weightroom(house, "list") == OK
    assert capsys.readouterr().out == ""
    assert weightroom(house, *SOON) == OK
    done = capsys.readouterr()
    assert [line.partition("since")[0] for line in done.out.splitlines()] == [
        line.partition("since")[0] for line in planned.out.splitlines()
    ]
    assert done.err == "run 1: unlink link: 1 (297 B)\n"


def test_programs_read_lines_of_json(house: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    assert weightroom(house, "--json", "--repo", "ann/one", *SOON) == OK
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["act"], line["kind"], line["subject"], line["size"]) == (
        "unlink",
        "link",
        f"ann/one {oid_of(OLD)}",
        len(OLD),
    )
    assert weightroom(house, "list", "--json") == OK
    (run,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert run["counts"] == {"unlink link": {"count": 1, "bytes": len(OLD)}}
    assert run["options"]["repo"] == 1


def test_a_run_is_undone_by_its_number(house: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    weightroom(house, *SOON)
    assert weightroom(house, "undo", "1") == OK
    assert "undone: link link: 1" in capsys.readouterr().err
    assert house.linked() == {oid_of(OLD), oid_of(NEW)}
    assert weightroom(house, "undo", "9") == USAGE
    assert "no run 9" in capsys.readouterr().err


def test_what_somebody_should_look_at_shows_in_the_status(house: Collected) -> None:
    house.upload(NEW * 9)
    assert weightroom(house, *SOON) == FINDINGS
    assert weightroom(house, "--yes", *SOON) == OK


def test_a_run_that_goes_on_says_try_again(house: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    with turn(house.database):
        assert weightroom(house) == AGAIN
    assert "A collection is running" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ann/none", "datasets/ann/one"])
def test_a_repo_that_is_not_there_is_refused(house: Collected, name: str) -> None:
    assert weightroom(house, "--repo", name) == REFUSED


def test_a_grace_is_hours_or_days(house: Collected, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        weightroom(house, "--grace-link", "-1")
    assert "12h or 3d" in capsys.readouterr().err
