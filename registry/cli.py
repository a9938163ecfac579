"""`weightroom`: the command line.

Exit: 0 fine · 1 findings · 2 usage or settings · 3 refused · 75 try again. Errors go to stderr: what, then what to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from starlette.applications import Starlette

from lfs.errors import BadStorage, LfsError, Unavailable
from registry import demo, logs, schema, serving
from registry.accounts import Accounts
from registry.app import build
from registry.commands import checks, gc, people, probing, quota, storage
from registry.commands.opening import AGAIN, OK, REFUSED, USAGE, NotMigrated, opened, settle
from registry.config import PREFIX, Config, ConfigError
from registry.db import Database
from registry.errors import BadBody, Busy, RegistryError
from registry.flags import parser

FLAGS = ("data", "database", "storage", "host", "port", "workers")
"""Flags that win over the setting of the same name."""


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
    database = opened(config)
    try:
        settle(config, database)
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
            serving.Welcome(version("weightroom"), _where(config), url, chat, token, xet=config.xet).show()
            accepting.set()

        with serving.sidecar_beside(sidecar, environ, accepting):
            if config.workers > 1:
                accept()
                serving.run_many("registry.cli:application", door, config.workers)
            else:
                serving.run_one(build(config, draining=draining), door, draining, accept)
    return OK


def application() -> Starlette:
    """Build the application of one worker process, from the environment that `serve` left."""
    logs.to_stderr()
    return build(Config.from_environ(os.environ))


def migrate(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Bring the database to the newest schema."""
    database = opened(Config.from_environ(environ))
    try:
        before, after = schema.migrate(database)
    finally:
        database.dispose()
    print(f"{before} → {after}" if before != after else f"at {after} already")
    return OK


def tour(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Show every door, in a temporary folder."""
    return demo.main(environ)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Mapping[str, str]], int]] = {
    "serve": serve,
    "user": people.user,
    "org": people.org,
    "token": people.token,
    "quota": quota.quota,
    "migrate": migrate,
    "doctor": probing.doctor,
    "fsck": checks.fsck,
    "storage": storage.storage,
    "gc": gc.gc,
    "demo": tour,
}


def _laid_over(environ: Mapping[str, str], asked: argparse.Namespace) -> dict[str, str]:
    """Lay the flags over the environment."""
    given = {name: getattr(asked, name, None) for name in FLAGS}
    return {**environ, **{PREFIX + name.upper(): str(value) for name, value in given.items() if value is not None}}


def _where(config: Config) -> str:
    rows = "SQLite" if config.embedded else "PostgreSQL"
    shelf = _kind(config.storage_url)
    if config.storage_from:
        shelf += f", bytes move from the {_kind(config.storage_from)}"
    risk = "" if config.durable else ", fsync off: a power cut may lose writes"
    return f"{config.data.absolute()}  ({rows}, {shelf}{risk})"


def _kind(url: str) -> str:
    return "local store" if url.startswith("file:") else "bucket"


def _chat_url(environ: Mapping[str, str]) -> str:
    host = environ.get(f"{PREFIX}SIDECAR_HOST") or "127.0.0.1"
    return f"http://{host}:{environ.get(f'{PREFIX}SIDECAR_PORT') or '8001'}/v1"


def _sidecar(config: Config, url: str, environ: Mapping[str, str]) -> list[str] | None:
    """Name the command of the sidecar; None where the `inference` extra is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    command = [sys.executable, "-m", "inference.cli", "serve", "--registry", url]
    # While bytes move, the folder that has some of them is worth sharing: what it lacks is downloaded.
    folders = [url for url in (config.storage_url, config.storage_from) if url and url.startswith("file:")]
    if folders:
        command += ["--shared-store", folders[0].removeprefix("file:").removeprefix("//")]
    if not environ.get(f"{PREFIX}API_KEYS"):
        command += ["--api-keys", "registry"]
    return command


def _failed(text: str, status: int) -> int:
    print(f"weightroom: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
