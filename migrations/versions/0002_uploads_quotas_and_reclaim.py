"""Uploads that arrive before they are proven, quotas, runs of the garbage collection, findings about buckets, locks.

Revision: 0002
Before it: 0001
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Widen uploads and packs, add quotas, make the tables of upkeep."""
    _widen_uploads()
    with op.batch_alter_table("packs") as packs:
        packs.drop_constraint(op.f("ck_packs_state"), type_="check")
        packs.create_check_constraint(op.f("ck_packs_state"), "state IN ('stored', 'live', 'condemned', 'deleting')")
    op.create_index("ix_packs_state", "packs", ["state"])
    op.add_column("namespaces", sa.Column("quota", sa.BigInteger(), nullable=True))
    op.create_index("ix_repos_namespace_id", "repos", ["namespace_id"])
    _upkeep()
    _count_locks()


def downgrade() -> None:
    """Go back; uploads on their way are forgotten, and a client asks for new ones."""
    _uncount_locks()
    for name in ("storage_probes", "gc_unlinked", "gc_runs"):
        op.drop_table(name)
    op.drop_index("ix_repos_namespace_id", "repos")
    with op.batch_alter_table("namespaces") as namespaces:
        namespaces.drop_column("quota")
    op.drop_index("ix_packs_state", "packs")
    op.execute("UPDATE packs SET state = 'condemned' WHERE state = 'deleting'")
    with op.batch_alter_table("packs") as packs:
        packs.drop_constraint(op.f("ck_packs_state"), type_="check")
        packs.create_check_constraint(op.f("ck_packs_state"), "state IN ('stored', 'live', 'condemned')")
    _narrow_uploads()


def _widen_uploads() -> None:
    for name in ("repo_id", "expires_at"):
        op.drop_index(f"ix_lfs_uploads_{name}", "lfs_uploads")
    with op.batch_alter_table("lfs_uploads") as uploads:
        uploads.add_column(sa.Column("session", sa.Text(), nullable=False, server_default=""))
        uploads.add_column(sa.Column("part_size", sa.BigInteger(), nullable=False, server_default="0"))
        uploads.add_column(sa.Column("reason", sa.Text(), nullable=False, server_default=""))
        uploads.add_column(sa.Column("lease", sa.String(length=32), nullable=False, server_default=""))
        uploads.add_column(sa.Column("lease_until", MOMENT, nullable=True))
        uploads.drop_constraint(op.f("ck_lfs_uploads_state"), type_="check")
        uploads.create_check_constraint(op.f("ck_lfs_uploads_state"), "state IN ('open', 'arrived', 'done', 'failed')")
        uploads.create_check_constraint(
            op.f("ck_lfs_uploads_mode"), "mode IN ('proxy', 'direct', 'staging', 'multipart', 'tus')"
        )
    op.create_index("ix_lfs_uploads_repo_id_state", "lfs_uploads", ["repo_id", "state"])
    op.create_index("ix_lfs_uploads_state_expires_at", "lfs_uploads", ["state", "expires_at"])


def _narrow_uploads() -> None:
    op.execute("DELETE FROM lfs_uploads WHERE state IN ('arrived', 'failed')")
    for name in ("repo_id_state", "state_expires_at"):
        op.drop_index(f"ix_lfs_uploads_{name}", "lfs_uploads")
    with op.batch_alter_table("lfs_uploads") as uploads:
        uploads.drop_constraint(op.f("ck_lfs_uploads_mode"), type_="check")
        uploads.drop_constraint(op.f("ck_lfs_uploads_state"), type_="check")
        uploads.create_check_constraint(op.f("ck_lfs_uploads_state"), "state IN ('open', 'done')")
        for name in ("lease_until", "lease", "reason", "part_size", "session"):
            uploads.drop_column(name)
    for name in ("repo_id", "expires_at"):
        op.create_index(f"ix_lfs_uploads_{name}", "lfs_uploads", [name])


def _upkeep() -> None:
    op.create_table(
        "gc_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'done', 'undone')", name=op.f("ck_gc_runs_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gc_runs")),
    )
    op.create_table(
        "gc_unlinked",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("linked_by", ID, nullable=True),
        sa.Column("linked_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["gc_runs.id"], name=op.f("fk_gc_unlinked_run_id_gc_runs")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_gc_unlinked_repo_id_repos")),
        sa.PrimaryKeyConstraint("run_id", "repo_id", "oid", name=op.f("pk_gc_unlinked")),
    )
    op.create_table(
        "storage_probes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("proof", sa.String(length=16), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "proof IN ('content_sha256', 'checksum_sha256', 'none')", name=op.f("ck_storage_probes_proof")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_probes")),
    )


def _count_locks() -> None:
    """Let a repo count its locks, so that no serial is given twice, and find a path by its hash, however long."""
    op.add_column("repos", sa.Column("locks_made", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE repos SET locks_made = "
        "(SELECT COALESCE(MAX(serial), 0) FROM lfs_locks WHERE lfs_locks.repo_id = repos.id)"
    )
    op.add_column("lfs_locks", sa.Column("path_sha", sa.String(length=64), nullable=False, server_default=""))
    locks = sa.table("lfs_locks", sa.column("id"), sa.column("path"), sa.column("path_sha"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(locks.c.id, locks.c.path)).all():
        digest = hashlib.sha256(row.path.encode()).hexdigest()
        connection.execute(sa.update(locks).where(locks.c.id == row.id).values(path_sha=digest))
    op.drop_index("uq_lfs_locks_repo_id_path", "lfs_locks")
    op.create_index("uq_lfs_locks_repo_id_path_sha", "lfs_locks", ["repo_id", "path_sha"], unique=True)


def _uncount_locks() -> None:
    # What the older index cannot hold on PostgreSQL.
    op.execute("DELETE FROM lfs_locks WHERE LENGTH(path) > 512")
    op.drop_index("uq_lfs_locks_repo_id_path_sha", "lfs_locks")
    op.create_index("uq_lfs_locks_repo_id_path", "lfs_locks", ["repo_id", "path"], unique=True)
    op.drop_column("lfs_locks", "path_sha")
    op.drop_column("repos", "locks_made")
