"""Xet: domains, xorbs, files, links, marks, grants, arrivals and ingests.

Revision: 0003
Before it: 0002
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
HASH = sa.LargeBinary(32)


def upgrade() -> None:
    """Make the tables, and let uploads come by Xet."""
    _allow_modes("'proxy', 'direct', 'staging', 'multipart', 'tus', 'xet'")
    _domains()
    _xorbs()
    _files()
    _links()
    _marks()
    _grants()
    _arrivals()
    _ingests()
    by_xet = sa.text("kind = 'xet'")
    op.create_index("ix_lfs_objects_key", "lfs_objects", ["key"], sqlite_where=by_xet, postgresql_where=by_xet)
    for columns in (["actor_id", "id", "size"], ["repo_id", "oid"]):
        op.create_index(
            f"ix_lfs_uploads_{columns[0]}_{columns[1]}",
            "lfs_uploads",
            columns,
            sqlite_where=sa.text("CAST(state AS TEXT) = 'arrived'"),
            postgresql_where=sa.text("state = 'arrived'"),
        )


def downgrade() -> None:
    """Go back. What only Xet holds is lost to its repos; their clients push it anew.

    That may have come whole: the bytes that came go a week after the object is kept by its chunks. Until then they are
    what is served again; those that a collection with a shorter grace has taken `weightroom fsck --repair` marks.
    """
    for name in ("actor_id_id", "repo_id_oid"):
        op.drop_index(f"ix_lfs_uploads_{name}", "lfs_uploads")
    op.drop_index("ix_lfs_objects_key", "lfs_objects")
    op.drop_table("xet_ingests")
    for name in (
        "arrivals",
        "grants",
        "marks",
        "links",
        "file_xorbs",
        "files",
        "xorb_domains",
        "xorbs",
        "keys",
        "domains",
    ):
        op.drop_table(f"xet_{name}")
    op.execute("DELETE FROM lfs_uploads WHERE mode = 'xet'")
    _name_what_came()
    op.execute(
        "UPDATE repos SET lfs_bytes = lfs_bytes - (SELECT COALESCE(SUM(l.size), 0) FROM lfs_links l"
        " JOIN lfs_objects o ON o.oid = l.oid WHERE l.repo_id = repos.id AND o.kind = 'xet')"
    )
    op.execute("DELETE FROM lfs_links WHERE oid IN (SELECT oid FROM lfs_objects WHERE kind = 'xet')")
    op.execute("DELETE FROM lfs_objects WHERE kind = 'xet'")
    _allow_modes("'proxy', 'direct', 'staging', 'multipart', 'tus'")


def _name_what_came() -> None:
    """Let the objects that were changed within a week name the key again that they left then."""
    names = ("id", "act", "subject")
    events = sa.table("events", *map(sa.column, names), sa.column("at", MOMENT), sa.column("body", sa.JSON()))
    lately = sa.and_(events.c.act == "object.chunked", events.c.at > datetime.now(UTC) - timedelta(days=7))
    acts = op.get_bind().execute(sa.select(events.c.subject, events.c.body).where(lately).order_by(events.c.id))
    # The last is the one that counts.
    left = {act.subject: {"oid": act.subject, "key": act.body["key"], "was": act.body["was"]} for act in acts}
    if left:
        whole = "UPDATE lfs_objects SET key = :was, kind = 'whole'"
        here = "WHERE oid = :oid AND key = :key AND kind = 'xet' AND state IN ('stored', 'condemned')"
        op.get_bind().execute(sa.text(f"{whole} {here}"), list(left.values()))


def _allow_modes(names: str) -> None:
    with op.batch_alter_table("lfs_uploads") as uploads:
        uploads.drop_constraint(op.f("ck_lfs_uploads_mode"), type_="check")
        uploads.create_check_constraint(op.f("ck_lfs_uploads_mode"), f"mode IN ({names})")


def _domains() -> None:
    op.create_table(
        "xet_domains",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("renewed_at", MOMENT, nullable=True),
        sa.CheckConstraint("kind IN ('public', 'private')", name=op.f("ck_xet_domains_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_xet_domains")),
    )
    op.create_index("uq_xet_domains_owner_kind", "xet_domains", ["owner", "kind"], unique=True)
    op.create_table(
        "xet_keys",
        sa.Column("domain_id", sa.String(length=32), nullable=False),
        sa.Column("week", sa.Integer(), nullable=False),
        sa.Column("key", HASH, nullable=False),
        _belongs("xet_keys", "domain_id", "xet_domains.id"),
        sa.PrimaryKeyConstraint("domain_id", "week", name=op.f("pk_xet_keys")),
    )


def _xorbs() -> None:
    op.create_table(
        "xet_xorbs",
        sa.Column("hash", HASH, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("table_key", sa.String(length=200), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("raw_size", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("promised_until", MOMENT, nullable=False),
        sa.Column("verified_at", MOMENT, nullable=False),
        sa.Column("scrubbed_at", MOMENT, nullable=False),
        sa.Column("condemned_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('live', 'condemned', 'deleting', 'quarantined')", name=op.f("ck_xet_xorbs_state")
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_xet_xorbs")),
    )
    op.create_index("ix_xet_xorbs_state_scrubbed_at", "xet_xorbs", ["state", "scrubbed_at"])
    op.create_table(
        "xet_xorb_domains",
        sa.Column("domain_id", sa.String(length=32), nullable=False),
        sa.Column("hash", HASH, nullable=False),
        _belongs("xet_xorb_domains", "domain_id", "xet_domains.id"),
        _belongs("xet_xorb_domains", "hash", "xet_xorbs.hash"),
        sa.PrimaryKeyConstraint("domain_id", "hash", name=op.f("pk_xet_xorb_domains")),
    )
    op.create_index("ix_xet_xorb_domains_hash", "xet_xorb_domains", ["hash"])


def _files() -> None:
    op.create_table(
        "xet_files",
        sa.Column("hash", HASH, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("terms", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_xet_files")),
    )
    op.create_index("ix_xet_files_shard", "xet_files", ["shard"])
    op.create_table(
        "xet_file_xorbs",
        sa.Column("file", HASH, nullable=False),
        sa.Column("xorb", HASH, nullable=False),
        _belongs("xet_file_xorbs", "file", "xet_files.hash"),
        _belongs("xet_file_xorbs", "xorb", "xet_xorbs.hash"),
        sa.PrimaryKeyConstraint("file", "xorb", name=op.f("pk_xet_file_xorbs")),
    )
    op.create_index("ix_xet_file_xorbs_xorb", "xet_file_xorbs", ["xorb"])


def _links() -> None:
    op.create_table(
        "xet_links",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("file", HASH, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('declared', 'proven', 'refuted')", name=op.f("ck_xet_links_state")),
        _belongs("xet_links", "repo_id", "repos.id"),
        _belongs("xet_links", "file", "xet_files.hash"),
        sa.PrimaryKeyConstraint("repo_id", "file", "sha256", name=op.f("pk_xet_links")),
    )
    op.create_index("ix_xet_links_repo_id_sha256", "xet_links", ["repo_id", "sha256"])
    op.create_index("ix_xet_links_file", "xet_links", ["file"])


def _marks() -> None:
    op.create_table(
        "xet_marks",
        sa.Column("domain_id", sa.String(length=32), nullable=False),
        sa.Column("chunk", HASH, nullable=False),
        sa.Column("file", HASH, nullable=False),
        sa.Column("xorb", HASH, nullable=False),
        _belongs("xet_marks", "domain_id", "xet_domains.id"),
        _belongs("xet_marks", "file", "xet_files.hash"),
        sa.PrimaryKeyConstraint("domain_id", "chunk", name=op.f("pk_xet_marks")),
    )
    op.create_index("ix_xet_marks_file", "xet_marks", ["file"])


def _grants() -> None:
    op.create_table(
        "xet_grants",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("domain_id", sa.String(length=32), nullable=False),
        sa.Column("hash", HASH, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        _belongs("xet_grants", "domain_id", "xet_domains.id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_xet_grants")),
    )
    op.create_index("ix_xet_grants_expires_at", "xet_grants", ["expires_at"])


def _arrivals() -> None:
    op.create_table(
        "xet_arrivals",
        sa.Column("namespace_id", ID, nullable=False),
        sa.Column("hash", HASH, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        _belongs("xet_arrivals", "namespace_id", "namespaces.id"),
        sa.PrimaryKeyConstraint("namespace_id", "hash", name=op.f("pk_xet_arrivals")),
    )
    op.create_index("ix_xet_arrivals_expires_at", "xet_arrivals", ["expires_at"])


def _ingests() -> None:
    op.create_table(
        "xet_ingests",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("lease", sa.String(length=32), nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'done', 'failed')", name=op.f("ck_xet_ingests_state")),
        _belongs("xet_ingests", "repo_id", "repos.id"),
        sa.PrimaryKeyConstraint("repo_id", "oid", name=op.f("pk_xet_ingests")),
    )
    op.create_index("ix_xet_ingests_state_created_at", "xet_ingests", ["state", "created_at"])


def _belongs(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    other = to.partition(".")[0]
    return sa.ForeignKeyConstraint([column], [to], name=op.f(f"fk_{table}_{column}_{other}"))
