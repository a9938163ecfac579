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
    _leaf(commands, "migrate", "Bring the database to the newest schema.", shelves)
    _checks(commands, shelves)
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


def _checks(commands: _Commands[argparse.ArgumentParser], shelves: argparse.ArgumentParser) -> None:
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="a line of JSON for each finding")
    _leaf(commands, "doctor", "Say whether this house is fit to open; status 1 if not.", shelves, as_json)
    fsck = _leaf(commands, "fsck", "Check rows against bytes; status 1 if there are findings.", shelves, as_json)
    fsck.add_argument("--read-data", action="store_true", help="read every byte and compare its hash")


def _leaf(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    return commands.add_parser(name, parents=list(parents), help=text, description=text)


def _acts(commands: _Commands[argparse.ArgumentParser], name: str, text: str) -> _Commands[argparse.ArgumentParser]:
    command = commands.add_parser(name, help=text, description=text)
    return command.add_subparsers(dest="act", required=True, metavar="ACT")
