"""`weightroom`: the command line.

Exit: 0 fine · 1 findings · 2 usage or settings · 3 refused · 75 try again. Errors go to stderr: what, then what to do.
"""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version

from starlette.applications import Starlette

from lfs.errors import BadStorage, LfsError, Unavailable
from registry import demo, logs, schema, serving
from registry.accounts import Accounts
from registry.app import Shelves, build
from registry.config import PREFIX, Config, ConfigError
from registry.db import Database
from registry.errors import BadBody, Busy, RegistryError
from registry.flags import parser
from registry.upkeep.doctor import Doctor
from registry.upkeep.findings import Finding
from registry.upkeep.fsck import Fsck

OK, FINDINGS, USAGE, REFUSED, AGAIN = 0, 1, 2, 3, 75

FLAGS = ("data", "database", "storage", "host", "port", "workers")
"""Flags that win over the setting of the same name."""


class NotMigrated(Exception):
    """The database has another schema than this program reads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    asked = parser().parse_args(arguments)
    environ = _laid_over(os.environ, asked)
    try:
        return COMMANDS[asked.command](asked, environ)
    except ConfigError as error:
        return _failed("wrong settings:\n  " + "\n  ".join(error.problems), USAGE)
    except (BadBody, BadStorage, NotMigrated) as error:
        return _failed(str(error), USAGE)
    except (Busy, Unavailable, serving.PortTaken) as error:
        return _failed(str(error), AGAIN)
    except (RegistryError, LfsError) as error:
        return _failed(error.message, REFUSED)
    except KeyboardInterrupt:
        return _failed("stopped before it was done", AGAIN)


def serve(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the server until a signal."""
    config = Config.from_environ(environ)
    config.secrets()
    database = _opened(config)
    try:
        _settle(config, database)
        return _serve(config, database, environ, beside=not asked.no_sidecar)
    finally:
        database.dispose()


def _serve(config: Config, database: Database, environ: Mapping[str, str], *, beside: bool) -> int:
    logs.to_stderr()
    serving.allow_files()
    # Worker processes read the environment anew; the flags must be in it.
    os.environ.update(environ)
    draining, accepting = threading.Event(), threading.Event()
    with serving.listen(config.host, config.port) as door:
        sidecar = _sidecar(config, serving.url_of(door), environ) if beside else None

        def accept() -> None:
            # Made last: a token made before the port was free or the store open would never be seen.
            token = Accounts(database).first_admin()
            url = config.public_url or serving.url_of(door)
            chat = None if sidecar is None else _chat_url(environ)
            serving.Welcome(version("weightroom"), _where(config), url, chat, token).show()
            accepting.set()

        with serving.sidecar_beside(sidecar, environ, accepting):
            if config.workers > 1:
                accept()
                serving.run_many("registry.cli:application", door, config.workers)
            else:
                serving.run_one(build(config, draining=draining), door, draining, accept)
    return OK


def _settle(config: Config, database: Database) -> None:
    """Migrate an embedded database; look whether a shared one is migrated. Raises: NotMigrated."""
    if config.embedded:
        schema.migrate(database)
    elif (at := schema.current(database)) != schema.head():
        raise NotMigrated(f"the database is at revision {at}, not {schema.head()}; run `weightroom migrate`")


def application() -> Starlette:
    """Build the application of one worker process, from the environment that `serve` left."""
    logs.to_stderr()
    return build(Config.from_environ(os.environ))


def user(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make a user."""
    password = _password() if asked.password else None
    with _Accounts(environ) as accounts:
        accounts.create_user(asked.name, fullname=asked.full_name, admin=asked.admin, password=password)
    print(f"made user {asked.name}; next: weightroom token create {asked.name}", file=sys.stderr)
    return OK


def org(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make an organisation, or a user its member."""
    with _Accounts(environ) as accounts:
        if asked.act == "create":
            accounts.create_org(asked.name, asked.owner, fullname=asked.full_name)
        elif asked.role == "none":
            accounts.remove_member(asked.name, asked.user)
        else:
            accounts.set_member(asked.name, asked.user, asked.role)
    return OK


def token(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make a token and print it and nothing else; or list them, or end one."""
    with _Accounts(environ) as accounts:
        if asked.act == "create":
            print(accounts.create_token(asked.user, asked.role, label=asked.label))
        elif asked.act == "revoke":
            accounts.revoke_token(asked.user, asked.id)
        else:
            for row in accounts.tokens(asked.user):
                used = row.last_used_at.isoformat(timespec="minutes") if row.last_used_at else "never used"
                print(f"{row.id}\t{row.role}\t{row.created_at:%Y-%m-%d}\t{used}\t{row.label}")
    return OK


def migrate(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Bring the database to the newest schema."""
    database = _opened(Config.from_environ(environ))
    try:
        before, after = schema.migrate(database)
    finally:
        database.dispose()
    print(f"{before} → {after}" if before != after else f"at {after} already")
    return OK


def doctor(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Say whether this house is fit to open."""
    try:
        config = Config.from_environ(environ)
        config.secrets()
    except ConfigError as error:
        findings = [Finding("settings", "setting", problem.partition(":")[0], problem) for problem in error.problems]
        return _report(findings, as_json=asked.json)
    _opened(config).dispose()
    shelves = Shelves(config)
    try:
        examined = Doctor(
            database=shelves.database,
            store=shelves.store,
            data=config.data,
            min_free=config.min_free,
            fsync=config.durable,
        )
        return _report(examined.run(), as_json=asked.json)
    finally:
        shelves.close()


def fsck(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check rows against bytes."""
    config = Config.from_environ(environ)
    _opened(config).dispose()
    shelves = Shelves(config)
    try:
        _settle(config, shelves.database)
        checked = Fsck(
            database=shelves.database,
            store=shelves.store,
            packs=shelves.packs,
            manifests=shelves.manifests,
            repositories=shelves.repositories,
        )
        return _report(checked.run(read_data=asked.read_data), as_json=asked.json)
    finally:
        shelves.close()


def tour(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Show every door, in a temporary folder."""
    return demo.main(environ)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Mapping[str, str]], int]] = {
    "serve": serve,
    "user": user,
    "org": org,
    "token": token,
    "migrate": migrate,
    "doctor": doctor,
    "fsck": fsck,
    "demo": tour,
}


class _Accounts:
    """The accounts of a migrated database, for one command."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._config = Config.from_environ(environ)

    def __enter__(self) -> Accounts:
        self._database = _opened(self._config)
        try:
            _settle(self._config, self._database)
        except BaseException:
            self._database.dispose()
            raise
        return Accounts(self._database)

    def __exit__(self, *error: object) -> None:
        self._database.dispose()


def _opened(config: Config) -> Database:
    try:
        # Hashes of tokens and passwords lie in it.
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{PREFIX}DATA: {config.data} cannot be made: {error.strerror}"]) from error
    return Database(config.database_url)


def _laid_over(environ: Mapping[str, str], asked: argparse.Namespace) -> dict[str, str]:
    """Lay the flags over the environment."""
    given = {name: getattr(asked, name, None) for name in FLAGS}
    return {**environ, **{PREFIX + name.upper(): str(value) for name, value in given.items() if value is not None}}


def _password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")


def _where(config: Config) -> str:
    rows = "SQLite" if config.embedded else "PostgreSQL"
    shelf = "local store" if config.storage_url.startswith("file:") else "bucket"
    risk = "" if config.durable else ", fsync off: a power cut may lose writes"
    return f"{config.data.absolute()}  ({rows}, {shelf}{risk})"


def _chat_url(environ: Mapping[str, str]) -> str:
    host = environ.get(f"{PREFIX}SIDECAR_HOST") or "127.0.0.1"
    return f"http://{host}:{environ.get(f'{PREFIX}SIDECAR_PORT') or '8001'}/v1"


def _sidecar(config: Config, url: str, environ: Mapping[str, str]) -> list[str] | None:
    """Name the command of the sidecar; None where the `inference` extra is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    command = [sys.executable, "-m", "inference.cli", "serve", "--registry", url]
    if config.storage_url.startswith("file:"):
        command += ["--shared-store", config.storage_url.removeprefix("file:")]
    if not environ.get(f"{PREFIX}API_KEYS"):
        command += ["--api-keys", "registry"]
    return command


def _report(findings: Iterable[Finding], *, as_json: bool) -> int:
    count = 0
    for finding in findings:
        count += 1
        print(json.dumps(finding.fields()) if as_json else finding.line(), flush=True)
    if not count and not as_json:
        print("nothing found", file=sys.stderr)
    return FINDINGS if count else OK


def _failed(text: str, status: int) -> int:
    print(f"weightroom: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
