"""The words of the command line: commands, arguments and what `--help` says of them."""

from __future__ import annotations

import argparse

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
    commands.add_parser("migrate", parents=[shelves], help="bring the database to the newest schema")
    _checks(commands, shelves)
    commands.add_parser("demo", help="a tour through every door, in a temporary folder")
    return made


def _serve(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    command = commands.add_parser("serve", parents=[shelves], help="run the server")
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", help="port to listen on (8000); 0 takes a free one")
    command.add_argument("--workers", help="server processes (1)")
    command.add_argument("--no-sidecar", action="store_true", help="run no inference sidecar beside the registry")


def _user(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "user", "make users")
    create = acts.add_parser("create", parents=[shelves], help="make a user")
    create.add_argument("name")
    create.add_argument("--admin", action="store_true", help="may have tokens that act for the whole server")
    create.add_argument("--full-name", default="", metavar="TEXT")
    create.add_argument("--password", action="store_true", help="ask for a password, or read it from stdin")


def _org(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "org", "make organisations")
    create = acts.add_parser("create", parents=[shelves], help="make an organisation")
    create.add_argument("name")
    create.add_argument("--owner", required=True, metavar="USER", help="its first admin")
    create.add_argument("--full-name", default="", metavar="TEXT")
    add = acts.add_parser("add", parents=[shelves], help="make a user a member, or change their role")
    add.add_argument("name")
    add.add_argument("user")
    add.add_argument("--role", choices=(*ROLES, "none"), default="write", help="write; `none` ends the membership")


def _token(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    acts = _acts(commands, "token", "make, list and end tokens")
    create = acts.add_parser("create", parents=[shelves], help="make a token and print it, this once")
    create.add_argument("user")
    create.add_argument("--role", choices=ROLES, default="write")
    create.add_argument("--label", default="", metavar="TEXT", help="what it is for")
    listing = acts.add_parser("list", parents=[shelves], help="list a user's tokens: id, role, made, used, label")
    listing.add_argument("user")
    revoke = acts.add_parser("revoke", parents=[shelves], help="end a token, at once")
    revoke.add_argument("user")
    revoke.add_argument("id", type=int, help="as `token list` shows it")


def _checks(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="a line of JSON for each finding")
    commands.add_parser("doctor", parents=[shelves, as_json], help="is this house fit to open?")
    fsck = commands.add_parser("fsck", parents=[shelves, as_json], help="check rows against bytes")
    fsck.add_argument("--read-data", action="store_true", help="read every byte and compare its hash")


def _acts(commands: _Commands[argparse.ArgumentParser], name: str, text: str) -> _Commands[argparse.ArgumentParser]:
    command = commands.add_parser(name, help=text)
    return command.add_subparsers(dest="act", required=True, metavar="ACT")
