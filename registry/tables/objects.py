"""Bytes the database knows of: packs and their repos, pointers, LFS objects, links, uploads, locks."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, String, Table, Text, text

from registry.tables.meta import Id, Moment, metadata

packs = Table(
    "packs",
    metadata,
    # SHA-256 of the pack file; the store key follows from it.
    Column("id", String(64), primary_key=True),
    Column("git_sha1", String(40), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("objects", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("idx_oid", String(64), nullable=False),
    Column("idx_bytes", BigInteger, nullable=False),
    Column("intro_oid", String(64), nullable=False),
    Column("intro_bytes", BigInteger, nullable=False),
    Column("why", String(8), nullable=False),
    # stored: bytes are coming, no repo shows them yet. condemned: waits out its grace before deletion. deleting: its
    # bytes are going now.
    Column("state", String(10), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("condemned_at", Moment, nullable=True),
    CheckConstraint("state IN ('stored', 'live', 'condemned', 'deleting')", name="state"),
    CheckConstraint("why IN ('push', 'api', 'import', 'fork', 'repack')", name="why"),
    # Every push looks whether a name of its own is on its way out.
    Index("ix_packs_state", "state"),
)

repo_packs = Table(
    "repo_packs",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("pack_id", ForeignKey("packs.id"), primary_key=True),
    # Rising per repo, so that readers try the newest pack first.
    Column("ordinal", BigInteger, nullable=False),
    Column("added_at", Moment, nullable=False),
    Index("ix_repo_packs_pack_id", "pack_id"),
)

# One row per distinct pointer blob of a repo, at its first introduction: the roots of LFS reclaim.
pointers = Table(
    "pointers",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("blob", String(40), primary_key=True),
    Column("oid", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("commit", String(40), nullable=False),
    Index("ix_pointers_repo_id_oid", "repo_id", "oid"),
)

lfs_objects = Table(
    "lfs_objects",
    metadata,
    Column("oid", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    # Where the bytes lie; never guessed from the oid.
    Column("key", String(200), nullable=False),
    Column("kind", String(8), nullable=False, default="whole"),
    Column("state", String(10), nullable=False),
    # Since when they lie there.
    Column("stored_at", Moment, nullable=False),
    Column("condemned_at", Moment, nullable=True),
    Column("checked_at", Moment, nullable=True),
    CheckConstraint("state IN ('stored', 'condemned', 'deleting', 'damaged')", name="state"),
    # Who asks by key asks for files that came by Xet; the others need not pay for that.
    Index("ix_lfs_objects_key", "key", sqlite_where=text("kind = 'xet'"), postgresql_where=text("kind = 'xet'")),
)

# The row that opens an object to a repo. It exists only after proof that the uploader holds the bytes.
lfs_links = Table(
    "lfs_links",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("oid", ForeignKey("lfs_objects.oid"), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("linked_by", Id, nullable=True),
    Column("linked_at", Moment, nullable=False),
    # Refreshed, at most daily, when a batch answers "already stored": keeps an upload whose commit is still to come.
    Column("seen_at", Moment, nullable=False),
    Index("ix_lfs_links_oid", "oid"),
)

lfs_uploads = Table(
    "lfs_uploads",
    metadata,
    # Rising with time, as every index here: a batch of 100 then writes a few pages and not hundreds.
    Column("id", String(32), primary_key=True),
    Column("repo_id", ForeignKey("repos.id"), nullable=False),
    Column("actor_id", Id, nullable=True),
    Column("oid", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mode", String(10), nullable=False),
    # Where the bytes lie since they arrived; empty before.
    Column("key", String(200), nullable=False, default=""),
    # What the shelf calls an upload in parts; empty for the other modes.
    Column("session", Text, nullable=False, default=""),
    Column("part_size", BigInteger, nullable=False, default=0),
    # open: bytes may come. arrived: they lie whole under `key`, not yet proven. done: linked. failed: see `reason`.
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    # Who works on it now, a tus writer or a prover; free again after `lease_until`.
    Column("lease", String(32), nullable=False, default=""),
    Column("lease_until", Moment, nullable=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    CheckConstraint("state IN ('open', 'arrived', 'done', 'failed')", name="state"),
    # xet: filed as chunks that were proven; `key` names the file.
    CheckConstraint("mode IN ('proxy', 'direct', 'staging', 'multipart', 'tus', 'xet')", name="mode"),
    Index("ix_lfs_uploads_repo_id_state", "repo_id", "state"),
    Index("ix_lfs_uploads_state_expires_at", "state", "expires_at"),
    # Who proves leaps from one actor to the next, and by the size passes over what is not for it. Of those who ask for
    # it by this cast SQLite knows that they do not want the index above.
    Index(
        "ix_lfs_uploads_actor_id_id",
        "actor_id",
        "id",
        "size",
        sqlite_where=text("CAST(state AS TEXT) = 'arrived'"),
        postgresql_where=text("state = 'arrived'"),
    ),
    # A shard asks which of its objects wait: a hundred thousand may. What comes in one piece never stands here.
    Index(
        "ix_lfs_uploads_repo_id_oid",
        "repo_id",
        "oid",
        sqlite_where=text("CAST(state AS TEXT) = 'arrived'"),
        postgresql_where=text("state = 'arrived'"),
    ),
)

lfs_locks = Table(
    "lfs_locks",
    metadata,
    # 32 hex digits and no dashes: client scripts match `\w+`.
    Column("id", String(32), primary_key=True),
    # Rising and never given twice in a repo, so that pages neither lose nor repeat a lock.
    Column("serial", Integer, nullable=False),
    Column("repo_id", ForeignKey("repos.id"), nullable=False),
    Column("path", Text, nullable=False),
    # SHA-256 of the path: a row of an index must fit into a third of a PostgreSQL page, and a path need not.
    Column("path_sha", String(64), nullable=False),
    Column("ref", Text, nullable=False, default=""),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("locked_at", Moment, nullable=False),
    Index("uq_lfs_locks_repo_id_path_sha", "repo_id", "path_sha", unique=True),
    Index("uq_lfs_locks_repo_id_serial", "repo_id", "serial", unique=True),
)
