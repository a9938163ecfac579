"""Who may use which commit: asked with the caller's token, remembered for a while, and kind only to those known."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from inference.download import Resolved
from inference.errors import ModelAbsent, Unavailable
from inference.resolver import AWAY_SECONDS, RIGHT_SECONDS, Resolver

OLD, NEW = "a" * 40, "b" * 40


@dataclass
class Source:
    """A registry: one private repo, one public."""

    sha: str = OLD
    readers: set[str | None] = field(default_factory=lambda: {"anna"})
    is_away: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    gate: threading.Event | None = None

    def resolve(self, name: str, token: str | None = None) -> Resolved:
        self.asked.append((name, token))
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.is_away:
            raise Unavailable("away", code="registry_unavailable")
        repo, _, revision = name.partition("@")
        if repo == "acme/private" and token not in self.readers:
            raise ModelAbsent("absent")
        return Resolved(repo, revision or None, revision if len(revision) == 40 else self.sha)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(source: Source, clock: Clock) -> Resolver:
    return Resolver(source, 2.0, clock)


def test_a_name_is_asked_for_again_only_after_the_refresh_time(
    source: Source, clock: Clock, resolver: Resolver
) -> None:
    assert resolver.resolve("acme/open", None).sha == OLD
    source.sha = NEW
    clock.now += 1.9
    assert resolver.resolve("acme/open", None).sha == OLD
    clock.now += 0.2
    assert resolver.resolve("acme/open", None).sha == NEW
    assert len(source.asked) == 2


def test_a_commits_name_never_moves_and_is_asked_for_once_a_minute(
    source: Source, clock: Clock, resolver: Resolver
) -> None:
    for _ in range(30):
        assert resolver.resolve(f"acme/open@{OLD}", None).sha == OLD
        clock.now += 1.9
    assert len(source.asked) == 1
    clock.now += RIGHT_SECONDS
    resolver.resolve(f"acme/open@{OLD}", None)
    assert len(source.asked) == 2


def test_what_one_caller_may_read_is_absent_for_another(source: Source, resolver: Resolver) -> None:
    assert resolver.resolve("acme/private", "anna").sha == OLD
    for token in ("bert", None, ""):
        with pytest.raises(ModelAbsent):
            resolver.resolve("acme/private", token)
    assert [token for _, token in source.asked] == ["anna", "bert", None, ""]


def test_a_right_that_is_taken_away_ends_within_a_minute(source: Source, clock: Clock, resolver: Resolver) -> None:
    resolver.resolve(f"acme/private@{OLD}", "anna")
    source.readers.clear()
    clock.now += RIGHT_SECONDS - 1
    assert resolver.resolve(f"acme/private@{OLD}", "anna").sha == OLD
    clock.now += 1
    with pytest.raises(ModelAbsent):
        resolver.resolve(f"acme/private@{OLD}", "anna")


def test_a_branch_asked_again_notices_a_lost_right_at_once(source: Source, clock: Clock, resolver: Resolver) -> None:
    resolver.resolve("acme/private", "anna")
    source.readers.clear()
    clock.now += 2
    with pytest.raises(ModelAbsent):
        resolver.resolve("acme/private", "anna")
    with pytest.raises(ModelAbsent):
        resolver.resolve("acme/private", "anna")


def test_an_outage_keeps_the_last_commit_for_those_who_had_the_right(
    source: Source, clock: Clock, resolver: Resolver
) -> None:
    resolver.resolve("acme/private", "anna")
    source.is_away = True
    clock.now += 10 * RIGHT_SECONDS
    assert resolver.resolve("acme/private", "anna").sha == OLD
    with pytest.raises(Unavailable):
        resolver.resolve("acme/private", "bert")
    with pytest.raises(Unavailable):
        resolver.resolve("acme/other", "anna")
    # The registry is not asked at every request while it is away, and its word counts again once it is back.
    asked = len(source.asked)
    clock.now += AWAY_SECONDS - 1
    assert resolver.resolve("acme/private", "anna").sha == OLD
    assert len(source.asked) == asked
    source.is_away, source.sha = False, NEW
    clock.now += 2
    assert resolver.resolve("acme/private", "anna").sha == NEW


def test_an_outage_gives_nothing_back_to_who_was_refused(source: Source, clock: Clock, resolver: Resolver) -> None:
    resolver.resolve("acme/private", "anna")
    source.readers.clear()
    clock.now += 3
    with pytest.raises(ModelAbsent):
        resolver.resolve("acme/private", "anna")
    source.is_away = True
    with pytest.raises(Unavailable):
        resolver.resolve("acme/private", "anna")


def test_many_callers_at_once_are_one_question(source: Source, resolver: Resolver) -> None:
    source.gate = threading.Event()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolver.resolve("acme/open", "anna").sha)) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    source.gate.set()
    for thread in threads:
        thread.join()
    assert found == [OLD] * 12
    assert len(source.asked) == 1


def test_tokens_are_not_kept(resolver: Resolver) -> None:
    resolver.resolve("acme/private", "anna")
    kept = {name: value for name, value in vars(resolver).items() if name != "_source"}
    assert "anna" not in repr(kept)
