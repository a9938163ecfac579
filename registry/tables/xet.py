"""Xet: xorbs and who may find them, files as runs of their chunks, links of repos to files, marks, grants, ingests.

Hashes are raw bytes. No row per chunk: a xorb's chunks are in its table, beside its body in the store.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from registry.tables.meta import Id, Moment, metadata

Hash = LargeBinary(32)

# A circle within which content is deduplicated; its id stands in addresses and survives renames.
xet_domains = Table(
    "xet_domains",
    metadata,
    Column("id", String(32), primary_key=True),
    # n<namespace>, r<repo>, or i for the whole instance: what `XET_DOMAIN` says.
    Column("owner", String(24), nullable=False),
    Column("kind", String(8), nullable=False),
    # Grows when xorbs went that clients may remember; a client starts afresh with a new one.
    Column("generation", Integer, nullable=False, default=0),
    Column("renewed_at", Moment, nullable=True),
    CheckConstraint("kind IN ('public', 'private')", name="kind"),
    Index("uq_xet_domains_owner_kind", "owner", "kind", unique=True),
)

# Under which key dedup answers of a week hide chunk hashes.
xet_keys = Table(
    "xet_keys",
    metadata,
    Column("domain_id", ForeignKey("xet_domains.id"), primary_key=True),
    # Weeks since 1970.
    Column("week", Integer, primary_key=True),
    Column("key", Hash, nullable=False),
)

xet_xorbs = Table(
    "xet_xorbs",
    metadata,
    Column("hash", Hash, primary_key=True),
    # Where body and table lie; a new proof has new keys.
    Column("key", String(200), nullable=False),
    Column("table_key", String(200), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("raw_size", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    # condemned: nothing needs it, deleted by the next collection unless a shard names it. deleting: its bytes are going
    # now. quarantined: its bytes were found to be others.
    Column("state", String(12), nullable=False),
    # Until then clients may believe that we have it.
    Column("promised_until", Moment, nullable=False),
    Column("verified_at", Moment, nullable=False),
    Column("scrubbed_at", Moment, nullable=False),
    Column("condemned_at", Moment, nullable=True),
    CheckConstraint("state IN ('live', 'condemned', 'deleting', 'quarantined')", name="state"),
    Index("ix_xet_xorbs_state_scrubbed_at", "state", "scrubbed_at"),
)

# Which domains may name a xorb.
xet_xorb_domains = Table(
    "xet_xorb_domains",
    metadata,
    Column("domain_id", ForeignKey("xet_domains.id"), primary_key=True),
    Column("hash", ForeignKey("xet_xorbs.hash"), primary_key=True),
    Index("ix_xet_xorb_domains_hash", "hash"),
)

xet_files = Table(
    "xet_files",
    metadata,
    Column("hash", Hash, primary_key=True),
    Column("size", BigInteger, nullable=False),
    # The SHA-256 of the shard that told its terms: it is kept for as long as a file is here that came by it.
    Column("shard", String(64), nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
    # As `lfs.xet.index.File` lays them out; last, as SQLite reads over what stands before a column.
    Column("terms", LargeBinary, nullable=False),
    Index("ix_xet_files_shard", "shard"),
)

xet_file_xorbs = Table(
    "xet_file_xorbs",
    metadata,
    Column("file", ForeignKey("xet_files.hash"), primary_key=True),
    Column("xorb", ForeignKey("xet_xorbs.hash"), primary_key=True),
    Index("ix_xet_file_xorbs_xorb", "xorb"),
)

# The row that opens a file to a repo. It serves Xet reads of that repo alone; all else goes by `lfs_links`.
xet_links = Table(
    "xet_links",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("file", ForeignKey("xet_files.hash"), primary_key=True),
    # What the client says the whole hashes to; empty if it says nothing.
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("actor_id", Id, nullable=True),
    # declared: the client's word. proven: read and hashed. refuted: it hashes to something else.
    Column("state", String(8), nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("state IN ('declared', 'proven', 'refuted')", name="state"),
    Index("ix_xet_links_repo_id_sha256", "repo_id", "sha256"),
    Index("ix_xet_links_file", "file"),
)

# Chunks by which a file is found: the first of it, and about one in a thousand.
xet_marks = Table(
    "xet_marks",
    metadata,
    Column("domain_id", ForeignKey("xet_domains.id"), primary_key=True),
    Column("chunk", Hash, primary_key=True),
    Column("file", ForeignKey("xet_files.hash"), nullable=False),
    # The one that had the chunk. No reference: it may go before its mark, if other xorbs keep the file.
    Column("xorb", Hash, nullable=False),
    Index("ix_xet_marks_file", "file"),
)

xet_grants = Table(
    "xet_grants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("domain_id", ForeignKey("xet_domains.id"), nullable=False),
    Column("hash", Hash, nullable=False),
    Column("key", String(200), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("ix_xet_grants_expires_at", "expires_at"),
)

# Xorbs that a namespace brought or may bring, and that no file of it names yet: they count as announced to it.
xet_arrivals = Table(
    "xet_arrivals",
    metadata,
    Column("namespace_id", ForeignKey("namespaces.id"), primary_key=True),
    Column("hash", Hash, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("ix_xet_arrivals_expires_at", "expires_at"),
)

# Objects that came whole and are to be sent by their chunks as well: work rows, one for each link that is due.
xet_ingests = Table(
    "xet_ingests",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    # No reference: the object may go while its row waits to be tidied up.
    Column("oid", String(64), primary_key=True),
    # waiting: to be sent. done: filed; the prover has the rest. failed: given up, see `reason`.
    Column("state", String(8), nullable=False),
    # How often it was begun, by processes that died of it as well.
    Column("tries", Integer, nullable=False, default=0),
    # Who sends it now; free again after `lease_until`, also to end the pause after a failure.
    Column("lease", String(32), nullable=False, default=""),
    Column("lease_until", Moment, nullable=True),
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("state IN ('waiting', 'done', 'failed')", name="state"),
    Index("ix_xet_ingests_state_created_at", "state", "created_at"),
)
