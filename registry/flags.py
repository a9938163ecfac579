"""The words of the command line: commands, arguments and what `--help` says of them."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

ROLES = ("read", "write", "admin")

_Commands = argparse._SubParsersAction


def parser() -> argparse.ArgumentParser:
    """Make the parser of `weightroom`."""
    made = argparse.ArgumentParser(
        prog="weightroom",
        description="A git-native home for model weights: git, huggingface_hub and the OpenAI API over one commit.",
        epilog="Every setting is also a variable: WEIGHTROOM_DATA, WEIGHTROOM_PORT, …; a flag wins.",
    )
    shelves = argparse.ArgumentParser(add_help=False)
    shelves.add_argument("--data", metavar="DIR", help="folder of database, store and caches (./data)")
    shelves.add_argument("--database", metavar="URL", help="sqlite:///FILE or postgresql+psycopg://… (in --data)")
    shelves.add_argument("--storage", metavar="URL", help="file:DIR or s3://bucket/prefix?endpoint=… (in --data)")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serve(commands, shelves)
    _user(commands, shelves)
    _org(commands, shelves)
    _token(commands, shelves)
    _quota(commands, shelves)
    _leaf(commands, "migrate", "Bring the database to the newest schema.", shelves)
    _checks(commands, shelves)
    _storage(commands, shelves)
    _gc(commands, shelves)
    _leaf(commands, "demo", "Tour every door in a temporary folder: git, LFS, the Hub API and chat.")
    return made


def _serve(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    command = _leaf(
        commands, "serve", "Run the server, and a sidecar beside it if the `inference` extra is installed.", shelves
    )
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", help="port to listen on (8000); 0 takes a free one")
    command.add_argument("--workers", help="server processes (1)")
    command.add_argument("--no-sidecar", action="store_true", help="run no inference sidecar beside the registry")


def _user(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "user", "Make users.")
    create = _leaf(acts, "create", "Make a user.", shelves)
    create.add_argument("name", help="the user's name, and that of their namespace")
    create.add_argument("--admin", action="store_true", help="may have tokens that act for the whole server")
    create.add_argument("--full-name", default="", metavar="TEXT", help="as people write it")
    create.add_argument("--password", action="store_true", help="ask for a password, or read it from stdin")


def _org(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "org", "Make organisations and their members.")
    create = _leaf(acts, "create", "Make an organisation.", shelves)
    create.add_argument("name", help="the organisation's name")
    create.add_argument("--owner", required=True, metavar="USER", help="its first admin")
    create.add_argument("--full-name", default="", metavar="TEXT", help="as people write it")
    add = _leaf(acts, "add", "Make a user a member, or change their role.", shelves)
    add.add_argument("name", help="the organisation")
    add.add_argument("user", help="the member")
    add.add_argument("--role", choices=(*ROLES, "none"), default="write", help="write; `none` ends the membership")


def _token(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "token", "Make, list and end tokens.")
    create = _leaf(acts, "create", "Make a token and print it, this once.", shelves)
    create.add_argument("user", help="whose")
    create.add_argument("--role", choices=ROLES, default="write", help="what it may do: write, unless said otherwise")
    create.add_argument("--label", default="", metavar="TEXT", help="what it is for")
    listing = _leaf(acts, "list", "List a user's tokens: id, role, made, used, label.", shelves)
    listing.add_argument("user", help="whose")
    revoke = _leaf(acts, "revoke", "End a token, at once.", shelves)
    revoke.add_argument("user", help="whose")
    revoke.add_argument("id", type=int, help="as `token list` shows it")


def _quota(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "quota", "See and set how much users and organisations may store.")
    show = _leaf(acts, "show", "List names with bytes used, bytes announced and quota.", shelves)
    show.add_argument("name", nargs="?", help="a user or organisation; all without it")
    allow = _leaf(acts, "set", "Set how much a user or organisation may store.", shelves)
    allow.add_argument("name", help="the user or organisation")
    allow.add_argument("size", help="such as 500GiB; `none` leaves it to WEIGHTROOM_QUOTA")


def _checks(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="a line of JSON for each finding")
    doctor = _leaf(commands, "doctor", "Say whether this house is fit to open; status 1 if not.", shelves, as_json)
    doctor.add_argument("what", nargs="?", choices=("storage",), help="try out what the storage enforces, and say so")
    fsck = _leaf(commands, "fsck", "Check rows against bytes; status 1 if there are findings.", shelves, as_json)
    fsck.add_argument("--read-data", action="store_true", help="read every byte and compare its hash")
    text = "repair what can be repaired, mark what cannot; status 1 if anything is left"
    fsck.add_argument("--repair", action="store_true", help=text)


def _storage(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "storage", "Move all bytes from STORAGE_FROM to STORAGE while the server works.")
    copy = _leaf(
        acts, "copy", "Copy what STORAGE lacks; goes on where it was killed; status 1 if bytes are bad.", shelves
    )
    copy.add_argument("--verify", action="store_true", help="read again what is there already, and what was written")
    copy.add_argument("--jobs", type=_jobs, default=8, metavar="N", help="keys copied at a time (8)")
    copy.add_argument("--json", action="store_true", help="a line of JSON for each finding, then one of sums")
    status = _leaf(acts, "status", "Say how much lies where; status 1 while STORAGE_FROM is needed.", shelves)
    status.add_argument("--json", action="store_true", help="as one line of JSON")


def _gc(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="a line of JSON for each thing")
    command = _leaf(commands, "gc", "Collect what no ref needs; status 1 if something needs a look.", shelves, as_json)
    command.add_argument("--dry-run", action="store_true", help="print what would go, why and when; change nothing")
    command.add_argument("--repo", metavar="NAME", help="unlink in this repo alone: org/name, datasets/org/name")
    command.add_argument("--yes", action="store_true", help="unlink also more than a fifth of a repo's bytes")
    command.add_argument("--now", action="store_true", help="condemn also xorbs that clients were promised")
    for name, (days, text) in _GRACES.items():
        command.add_argument(f"--grace-{name}", type=_grace, metavar="TIME", help=f"{text} ({days}), such as 12h or 3d")
    # The same flags behind the act, where their absence must not undo what stood before it.
    behind = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for name in ("data", "database", "storage"):
        behind.add_argument(f"--{name}", metavar="WHERE", help="as for every command")
    behind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="a line of JSON for each thing")
    acts = command.add_subparsers(dest="act", metavar="ACT")
    text = "Give back what a run unlinked, as far as the bytes are there; status 1 if some are not."
    undo = _leaf(acts, "undo", text, behind)
    undo.add_argument("run", type=int, metavar="RUN", help="as `gc list` shows it")
    _leaf(acts, "list", "List runs: id, begin, state, what they did.", behind)


_GRACES = {
    "log": ("30d", "what a ref pointed to since then counts"),
    "link": ("14d", "rest of a link since it was asked for"),
    "repo": ("14d", "rest of a deleted repo"),
    "object": ("7d", "rest of an object without links"),
    "trash": ("14d", "rest of a condemned object"),
    "pack": ("1d", "rest of a condemned pack"),
    "xorb": ("1d", "rest of a condemned xorb"),
    "key": ("7d", "rest of bytes that no row names"),
}


def _grace(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([hd])", text)
    if match is None:
        raise argparse.ArgumentTypeError("must be hours or days, such as 12h or 3d")
    return timedelta(hours=int(match[1])) if match[2] == "h" else timedelta(days=int(match[1]))


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("must be a number from 1 to 64")
    return int(text)


def _leaf(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    return commands.add_parser(name, parents=list(parents), help=text, description=text)


def _acts(commands: _Commands[argparse.ArgumentParser], name: str, text: str) -> _Commands[argparse.ArgumentParser]:
    command = commands.add_parser(name, help=text, description=text)
    return command.add_subparsers(dest="act", required=True, metavar="ACT")
