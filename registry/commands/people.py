"""Commands about people: users, organisations, tokens."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Mapping

from registry.accounts import Accounts
from registry.commands.opening import OK, opened, settle
from registry.config import Config


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


class _Accounts:
    """The accounts of a migrated database, for one command."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._config = Config.from_environ(environ)

    def __enter__(self) -> Accounts:
        self._database = opened(self._config)
        try:
            settle(self._config, self._database)
        except BaseException:
            self._database.dispose()
            raise
        return Accounts(self._database)

    def __exit__(self, *error: object) -> None:
        self._database.dispose()


def _password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")
