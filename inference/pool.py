"""Which models are loaded: leased by name, kept by commit, swapped when a branch moves, evicted by bytes.

    absent ── load (one thread per commit; builds one after the other) ──> ready ── idle, or room needed ──> closed
      ^                     │                                               │
      └──── failed <────────┘                                               └─ superseded ── last lease back ──> closed

A name serves its old commit until the new one is ready. Nothing that is leased is ever closed, and nothing pinned is
evicted; when all that fits is leased, the newcomer is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from inference.download import Resolved
from inference.engine import Engine
from inference.errors import EngineFailed, ModelAbsent, ModelRefused, Overloaded, SidecarError, Unavailable
from inference.loaded import Lease, Loaded, Phase, State, Turnover
from inference.names import parse
from inference.resolver import Resolver, Shelf

log = logging.getLogger(__name__)

Build = Callable[[Path, str, str], Engine]
"""(folder, repo, sha) → a loaded engine; policy is judged in there, before torch."""

FAILED_SECONDS = 30.0
"""A load that failed is not tried again for this long; a refusal by policy holds for the life of the process."""
SOON_SECONDS = 1.0
CRASH_SECONDS = 60.0
"""A second crash of one commit's engine within this time leaves it failed for as long."""
SETTLE_SECONDS = 3.0
"""A superseded commit stays this long after its last use: another branch that still means it may ask."""
TIDY_SECONDS = 1.0
KEPT_FAILURES = 100


@dataclass(slots=True, eq=False)
class _Load:
    """A commit on its way, or the memory that it failed."""

    resolved: Resolved
    names: set[str]
    error: SidecarError | None = None
    retry_at: float = 0.0


class Pool:
    """Loaded models of one process; thread-safe."""

    def __init__(
        self,
        checkouts: Shelf,
        build: Build,
        budget_bytes: int | Callable[[], int],
        idle_seconds: float,
        refresh_seconds: float = 2.0,
        *,
        load_seconds: float = 300.0,
        estimate: Callable[[Path, str, str], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start empty.

        budget_bytes: what all may hold together; a function is asked when the first room is needed.
        idle_seconds: unload what nobody used for so long; 0 keeps it until its bytes are needed.
        estimate: bytes of a commit before it is loaded; None counts its weight files.
        """
        self._checkouts, self._build = checkouts, build
        self._budget = budget_bytes if callable(budget_bytes) else lambda: budget_bytes
        self._idle_seconds, self._load_seconds = idle_seconds, load_seconds
        self._estimate = estimate or _weight_bytes
        self._clock = clock
        self._resolver = Resolver(checkouts, refresh_seconds, clock)
        self._changed = threading.Condition()
        self._building = threading.Lock()
        self._ready: dict[str, Loaded] = {}
        self._leaving: list[Loaded] = []
        self._loads: dict[str, _Load] = {}
        self._serving: dict[str, str] = {}
        self._pinned: set[str] = set()
        self._crashes: dict[str, float] = {}
        self._waiting: Counter[str] = Counter()
        self._turnover = Turnover()
        self._is_closed = False
        self._tidier = threading.Thread(target=self._keep_tidy, name="pool-tidy", daemon=True)
        self._tidier.start()

    def lease(self, name: str, token: str | None = None, seconds: float | None = None) -> Lease:
        """Lease the model that `name` means for the owner of `token`; load it if need be, and wait for that.

        seconds: how long to wait for the load; None waits `load_seconds`.
        Raises: ModelAbsent, ModelRefused, Overloaded (`model_capacity`), EngineFailed (broken twice, or unloadable),
        Unavailable (`model_loading` once the time is up, `registry_unavailable`, `draining`).
        """
        if parse(name).extra is not None:
            raise ModelAbsent(f"{name}: this sidecar serves whole revisions, without ':'", param="model")
        resolved = self._resolver.resolve(name, token)
        deadline = self._clock() + (self._load_seconds if seconds is None else seconds)
        load: _Load | None = None
        with self._changed:
            while True:
                self._check_open()
                wanted = self._healthy(resolved.sha)
                if wanted is not None:
                    return self._lend(name, resolved.repo, wanted, is_asked_for=True)
                if load is None or (load.error is None and self._loads.get(resolved.sha) is not load):
                    # None has begun yet, or what it brought has gone again: the engine broke at once, say.
                    load = self._start(name, resolved, token)
                former = self._healthy(self._serving.get(name, resolved.sha))
                if former is not None:
                    return self._lend(name, resolved.repo, former, is_asked_for=False)
                if load.error is not None:
                    raise _again(load.error)
                left = deadline - self._clock()
                if left <= 0:
                    raise Unavailable(f"{name} is still loading; ask again", code="model_loading", retry_after=5)
                self._await(resolved.sha, min(left, TIDY_SECONDS))

    def pin(self, name: str) -> bool:
        """Never evict what `name` means, and load it now, in the background, with the sidecar's own token.

        True once it is loaded: ask again until then, because a load may fail and is begun by asking.
        Raises: ModelAbsent, Unavailable; the name stays pinned, and loads when it is first asked for.
        """
        with self._changed:
            self._pinned.add(name)
        token = self._checkouts.own_token()
        resolved = self._resolver.resolve(name, token)
        with self._changed:
            self._check_open()
            if self._healthy(resolved.sha) is None:
                load = self._start(name, resolved, token)
                if load.error is not None:
                    raise _again(load.error)
                return False
            self._move(name, resolved.sha)
            return True

    def states(self) -> list[State]:
        """List loaded, loading and failed commits, for `/v1/models`."""
        with self._changed:
            shown = [self._shown(loaded, "ready") for loaded in self._ready.values()]
            shown += [self._shown(loaded, "superseded") for loaded in self._leaving]
            for sha, load in self._loads.items():
                phase: Phase = "loading" if load.error is None else "failed"
                why = None if load.error is None else load.error.message
                shown.append(State(tuple(sorted(load.names)), load.resolved.repo, sha, phase, error=why))
        return shown

    def tidy(self) -> None:
        """Close what is superseded and given back, and what was idle too long; cheap, runs by itself every second."""
        now = self._clock()
        with self._changed:
            pinned = self._kept()
            for sha, loaded in list(self._ready.items()):
                unused = now - loaded.used_at
                is_old = loaded.is_superseded and unused >= SETTLE_SECONDS
                is_idle = 0 < self._idle_seconds <= unused and sha not in pinned
                if not loaded.leases and (is_old or is_idle):
                    self._retire(sha)
            closing = [loaded for loaded in self._leaving if not loaded.leases and not loaded.is_closing]
            for loaded in closing:
                loaded.is_closing = True
        for loaded in closing:
            self._close(loaded)
            with self._changed:
                self._leaving.remove(loaded)
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Refuse new leases and wait up to `seconds` for running requests; True if all of them finished."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            held = [*self._ready.values(), *self._leaving]
        deadline = self._clock() + seconds
        # Every engine hears of it, also after one was late.
        late = [one for one in held if not one.engine.drain(max(0.0, deadline - self._clock()))]
        return not late

    def close(self) -> None:
        """Close every engine; requests that still run fail. Idempotent."""
        with self._changed:
            self._is_closed = True
            for sha in list(self._ready):
                self._retire(sha)
            closing = [loaded for loaded in self._leaving if not loaded.is_closing]
            self._leaving = [loaded for loaded in self._leaving if loaded.is_closing]
            self._changed.notify_all()
        for loaded in closing:
            self._close(loaded)

    def turnover(self) -> Turnover:
        """Count loads and evictions since the start, and look at the caches; cheap."""
        with self._changed:
            looks = [loaded.engine.stats() for loaded in self._ready.values()]
            used, total = sum(look.kv_used for look in looks), sum(look.kv_total for look in looks)
            return replace(self._turnover, kv_used=used, kv_total=total)

    def _close(self, loaded: Loaded) -> None:
        """Close an engine and let its files go; one that breaks while closing holds up nothing else."""
        try:
            loaded.engine.close()
        except Exception:
            log.exception("closing %s@%s failed", loaded.repo, loaded.sha)
        finally:
            self._checkouts.release(loaded.sha)

    def _await(self, sha: str, seconds: float) -> None:
        """Wait for a change; a commit that arrives is not evicted before who waited has it. Holds the lock."""
        self._waiting[sha] += 1
        try:
            self._changed.wait(seconds)
        finally:
            self._waiting[sha] -= 1
            if not self._waiting[sha]:
                del self._waiting[sha]

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the sidecar is shutting down", code="draining", retry_after=5)

    def _lend(self, name: str, repo: str, loaded: Loaded, *, is_asked_for: bool) -> Lease:
        """Count a lease; `is_asked_for` is False for a commit that stands in for its successor. Holds the lock."""
        if is_asked_for:
            self._move(name, loaded.sha)
            loaded.is_superseded = False
        loaded.leases += 1
        loaded.used_at = self._clock()
        return Lease(name, repo, loaded, self._give_back)

    def _move(self, name: str, sha: str) -> None:
        """Let a name serve a ready commit; the one it leaves may go. Holds the lock."""
        former = self._ready.get(self._serving.get(name, sha))
        if former is not None and former.sha != sha:
            former.is_superseded = True
        self._serving[name] = sha

    def _healthy(self, sha: str) -> Loaded | None:
        """Find a ready commit; one whose engine crashed is put aside, and failed if it did so just before too."""
        loaded = self._ready.get(sha)
        if loaded is None or not loaded.is_broken():
            return loaded
        now = self._clock()
        self._retire(sha)
        if now - self._crashes.get(sha, -CRASH_SECONDS) < CRASH_SECONDS:
            error = EngineFailed(f"the engine of {loaded.repo}@{sha} broke twice within {CRASH_SECONDS:.0f} seconds")
            self._loads[sha] = _Load(Resolved(loaded.repo, None, sha), set(), error, now + CRASH_SECONDS)
        self._crashes[sha] = now
        return None

    def _start(self, name: str, resolved: Resolved, token: str | None) -> _Load:
        """Join the load of a commit, or begin one unless it failed too lately to try again. Holds the lock."""
        load = self._loads.get(resolved.sha)
        if load is not None:
            load.names.add(name)
            if load.error is None or self._clock() < load.retry_at:
                return load
        load = self._loads[resolved.sha] = _Load(resolved, {name})
        own = token if token is not None else self._checkouts.own_token()
        threading.Thread(target=self._load, args=(load, own), name=f"load-{resolved.sha[:8]}", daemon=True).start()
        return load

    def _load(self, load: _Load, token: str | None) -> None:
        """Check out, make room, build; then serve it under every name that waits for it."""
        repo, sha = load.resolved.repo, load.resolved.sha
        try:
            path = self._checkouts.pin(repo, sha, token)
            try:
                self._bring_up(load, path)
            except BaseException:
                self._checkouts.release(sha)
                raise
        except SidecarError as error:
            self._fail(load, error)
        except Exception as error:
            # Loading runs other people's files through Transformers, which raises what it likes.
            log.exception("loading %s@%s failed", repo, sha)
            why = f"{repo}@{sha} could not be loaded ({type(error).__name__}); the sidecar's log says more"
            self._fail(load, EngineFailed(why))

    def _bring_up(self, load: _Load, path: Path) -> None:
        repo, sha = load.resolved.repo, load.resolved.sha
        with self._building:
            self._make_room(repo, self._estimate(path, repo, sha))
            engine = self._build(path, repo, sha)
            loaded = Loaded(repo, sha, path, engine, engine.info().bytes, used_at=self._clock())
            self._serve(load, loaded)

    def _serve(self, load: _Load, loaded: Loaded) -> None:
        with self._changed:
            is_closed = self._is_closed
            if not is_closed:
                self._turnover = replace(self._turnover, loads=self._turnover.loads + 1)
                self._ready[loaded.sha] = loaded
                for name in load.names:
                    self._move(name, loaded.sha)
            self._loads.pop(loaded.sha, None)
            self._changed.notify_all()
        if is_closed:
            self._close(loaded)

    def _fail(self, load: _Load, error: SidecarError) -> None:
        """Remember why; a lack of room or of the registry may be over soon, so that is tried again soon."""
        now = self._clock()
        # One caller's token may have lost its right while the files came; the next caller's may have it.
        soon = dict.fromkeys((Overloaded, Unavailable, ModelAbsent), SOON_SECONDS)
        passing = {ModelRefused: float("inf"), **soon}
        wait = passing.get(type(error), FAILED_SECONDS)
        with self._changed:
            load.retry_at, load.error = now + wait, error
            failed = [sha for sha, one in self._loads.items() if one.error is not None]
            for sha in failed[:-KEPT_FAILURES]:
                del self._loads[sha]
            self._changed.notify_all()

    def _make_room(self, repo: str, needed: int) -> None:
        """Evict idle models, least recently used first, until `needed` bytes fit.

        Raises: Overloaded (`model_capacity`).
        """
        budget = self._budget()
        while True:
            with self._changed:
                held = sum(loaded.bytes for loaded in [*self._ready.values(), *self._leaving])
                if held + needed <= budget:
                    return
                kept = self._kept().union(self._waiting)
                idle = [one for sha, one in self._ready.items() if not one.leases and sha not in kept]
                going = [one for one in self._leaving if not one.leases]
                if held + needed > budget + sum(one.bytes for one in idle + going):
                    # Nobody is sent away for a newcomer that would not fit even so.
                    message = f"{repo} needs {needed} bytes, and {held} of {budget} are in use"
                    raise Overloaded(message, code="model_capacity", retry_after=10)
                if not going:
                    self._retire(min(idle, key=lambda one: one.used_at).sha)
            self.tidy()
            with self._changed:
                # Another thread may be closing one: its bytes come back with a notification.
                self._changed.wait_for(lambda: not any(one.is_closing for one in self._leaving), TIDY_SECONDS)

    def _retire(self, sha: str) -> None:
        """Take a commit out of service; it is closed once its last lease is back. Holds the lock."""
        loaded = self._ready.pop(sha, None)
        if loaded is not None:
            self._turnover = replace(self._turnover, evictions=self._turnover.evictions + 1)
            self._leaving.append(loaded)

    def _give_back(self, loaded: Loaded) -> None:
        with self._changed:
            loaded.leases -= 1
            loaded.used_at = self._clock()
            self._changed.notify_all()

    def _kept(self) -> set[str]:
        """Name the commits that pinned names serve. Holds the lock."""
        return {self._serving[name] for name in self._pinned if name in self._serving}

    def _shown(self, loaded: Loaded, phase: Phase) -> State:
        names = tuple(sorted(name for name, sha in self._serving.items() if sha == loaded.sha))
        is_pinned = phase == "ready" and loaded.sha in self._kept()
        context = loaded.engine.info().context
        return State(names, loaded.repo, loaded.sha, phase, loaded.bytes, context, loaded.leases, is_pinned=is_pinned)

    def _keep_tidy(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                self._changed.wait(TIDY_SECONDS)
            try:
                self.tidy()
            except Exception:
                # Housekeeping goes on after a surprise: without it nothing would ever be unloaded.
                log.exception("tidying the pool failed")


def _again(error: SidecarError) -> SidecarError:
    """Copy a kept error: one that is raised twice would grow two tracebacks."""
    return type(error)(error.message, param=error.param, code=error.code, retry_after=error.retry_after)


def _weight_bytes(path: Path, repo: str, sha: str) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))
