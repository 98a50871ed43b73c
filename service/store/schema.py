"""Define the tables. One schema for SQLite and PostgreSQL; migrations/ creates it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from service.store.types import Key, UtcDateTime, identifier

metadata = MetaData()

# A key is never reused (AUTOINCREMENT), so a bank cached for a deleted machine is never taken for the bank of a later
# machine of the same id.
machine = Table(
    "machine",
    metadata,
    Column("machine_key", Key, primary_key=True, autoincrement=True),
    Column("machine_id", identifier(64), nullable=False, unique=True),
    Column("description", String(500), nullable=False),
    Column("threshold_rule", String(9), nullable=False, server_default="conformal"),
    Column("false_alarm_rate", Float, nullable=True),  # null for the service's default
    Column("decision_threshold", Float, nullable=True),  # threshold of the manual rule
    Column("embedding_space_id", identifier(200), nullable=True),  # null if nothing is enrolled
    Column("generation", Integer, nullable=False),  # raised by every change of the bank
    # Oldest generation that the guard may compare with: one change ago may be out of date in a way that matters.
    Column("guard_generation", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

# Last generations of deleted machines. A new machine of the same id continues counting there, so an answer about one is
# never taken for an answer about the other.
deleted_machine = Table(
    "deleted_machine",
    metadata,
    Column("machine_id", identifier(64), primary_key=True),
    Column("generation", Integer, nullable=False),  # last generation
)

clip = Table(
    "clip",
    metadata,
    Column("clip_id", Key, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("sha256", identifier(64), nullable=False),  # hash of the posted bytes
    Column("name", String(255), nullable=False),
    Column("recording", identifier(255), nullable=True),  # null if the clip is its own recording
    Column("domain", String(6), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("sample_rate", Integer, nullable=False),  # rate of the file, Hz
    Column("channels", Integer, nullable=False),  # channels of the file
    Column("enrolled_at", UtcDateTime, nullable=False),
    UniqueConstraint("machine_key", "sha256", name="clip_once_per_machine"),
    CheckConstraint("domain IN ('source', 'target')", name="clip_domain"),
    sqlite_autoincrement=True,
)

embedding = Table(
    "embedding",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("window", Integer, primary_key=True),  # 0, 1, ... by time
    Column("start_s", Float, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
    Column("checksum", BigInteger, nullable=False, server_default="0"),  # embeddings.checksum
)

# Posted files of enrolled clips; `clip.sha256` is their checksum. A separate table, so that reading clips does not read
# past them. Clips enrolled while audio was not stored have no row.
audio = Table(
    "audio",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("file", LargeBinary, nullable=False),
)

# Acoustics of enrolled clips. Clips enrolled before these were measured have no row.
acoustics = Table(
    "acoustics",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("level_dbfs", Float, nullable=False),
    Column("noise_floor_dbfs", Float, nullable=False),
    Column("bandwidth_hz", Float, nullable=False),
    Column("clipped", Float, nullable=False),  # share of samples
    Column("bands_dbfs", LargeBinary, nullable=False),  # float32, little-endian
    Column("codec", String(32), nullable=True),  # lossy codec of the file, empty without one; null if unknown
)

# Background noise of a machine, recorded while it stands still.
noise = Table(
    "noise",
    metadata,
    Column("noise_id", Key, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("embedding_space_id", identifier(200), nullable=False),
    Column("sha256", identifier(64), nullable=False),  # hash of the posted bytes
    Column("name", String(255), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("vectors", LargeBinary, nullable=False),  # (windows, dim), float32, little-endian
    Column("checksum", BigInteger, nullable=False, server_default="0"),  # embeddings.noise_checksum
    Column("enrolled_at", UtcDateTime, nullable=False),
    UniqueConstraint("machine_key", "embedding_space_id", "sha256", name="noise_once_per_machine"),
    sqlite_autoincrement=True,
)

# Posted files of noise clips.
noise_audio = Table(
    "noise_audio",
    metadata,
    Column("noise_id", ForeignKey("noise.noise_id", ondelete="CASCADE"), primary_key=True),
    Column("file", LargeBinary, nullable=False),
)

# Recent scores, up to RECENT_SCORES per machine.
score = Table(
    "score",
    metadata,
    Column("score_id", Key, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("scored_at", UtcDateTime, nullable=False),
    Column("generation", Integer, nullable=False),  # generation of the bank that was compared with
    Column("backend", String(50), nullable=False),
    Column("domain", String(6), nullable=False),  # domain of the nearest enrolled clip
    Column("anomaly_score", Float, nullable=False),
    CheckConstraint("domain IN ('source', 'target')", name="score_domain"),
    sqlite_autoincrement=True,
)

scores_of_machine = Index("scores_of_machine", score.c.machine_key, score.c.score_id)

# Downsampled spectrograms. Clips enrolled before this table existed, or by a bundle without spectrograms, have no row.
spectrogram = Table(
    "spectrogram",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("window", Integer, primary_key=True),
    Column("bands", Integer, nullable=False),
    Column("cells", LargeBinary, nullable=False),  # float16, little-endian, (steps, bands)
    Column("checksum", BigInteger, nullable=False),
)

# Slices of enrolled windows, for the event view. Clips enrolled before this table existed, or by a bundle without
# frames, have no row.
slices = Table(
    "slices",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("window", Integer, primary_key=True),
    Column("bands", Integer, nullable=False),  # values of a step
    Column("cells", LargeBinary, nullable=False),  # float16, little-endian, (steps, bands)
    Column("checksum", BigInteger, nullable=False),
)

# Variants and shorter cuts of enrolled clips. Only the first clips of a machine have some.
piece = Table(
    "piece",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(7), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float16, little-endian
    Column("bands", Integer, nullable=False),  # values of a slice; 0 without slices
    Column("cells", LargeBinary, nullable=False),  # float16, little-endian, (steps, bands)
    Column("checksum", BigInteger, nullable=False),
    CheckConstraint("kind IN ('variant', 'cut')", name="piece_kind"),
)

clips_of_machine = Index("clips_of_machine", clip.c.machine_key, clip.c.clip_id)

# Stored responses by idempotency key. Deleted with their machine: a response must not name clips of a deleted machine.
idempotency = Table(
    "idempotency",
    metadata,
    Column("idempotency_key", identifier(255), primary_key=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("fingerprint", identifier(64), nullable=False),  # sha256 of everything that the response depends on
    Column("response", Text, nullable=False),  # JSON
    Column("stored_at", UtcDateTime, nullable=False),
)

idempotency_by_time = Index("idempotency_by_time", idempotency.c.stored_at)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", identifier(12), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),  # separated by spaces
    Column("machine_prefix", identifier(64), nullable=True),  # null for all machines
    Column("secret_sha256", String(64), nullable=False),  # the secret itself is not stored
    Column("rate_per_minute", Integer, nullable=True),  # requests; null for no limit
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime, nullable=True),  # the row stays: a store that ever had a key is never open
)

# Has no foreign keys, so that entries outlive the machines and keys they name.
audit = Table(
    "audit",
    metadata,
    Column("audit_id", Key, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", String(64), nullable=False),  # name of the key
    Column("key_id", identifier(12), nullable=True),  # null if there was no key
    Column("action", String(20), nullable=False),
    Column("machine_id", identifier(64), nullable=True),
    Column("detail", String(500), nullable=False),
    Column("request_id", String(32), nullable=True),  # null for the command line
    sqlite_autoincrement=True,
)

# Has no foreign keys to machine and key: a job is reported after these are deleted.
job = Table(
    "job",
    metadata,
    Column("job_id", Key, primary_key=True, autoincrement=True),
    Column("kind", String(10), nullable=False),
    Column("state", String(8), nullable=False),
    Column("machine_id", identifier(64), nullable=True),  # null for the whole service
    Column("parameters", Text, nullable=False),  # JSON, of its kind
    Column("total", Integer, nullable=True),  # null until it is known
    Column("done", Integer, nullable=False, server_default="0"),
    Column("result", Text, nullable=True),
    Column("problem", String(40), nullable=True),
    Column("detail", String(1000), nullable=True),
    Column("who", String(64), nullable=False),  # name of the key
    Column("key_id", identifier(12), nullable=True),
    Column("machine_prefix", identifier(64), nullable=True),  # machine prefix of the key
    Column("request_id", String(32), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime, nullable=True),
    Column("ended_at", UtcDateTime, nullable=True),
    sqlite_autoincrement=True,
)

jobs_by_state = Index("jobs_by_state", job.c.state, job.c.job_id)

job_entry = Table(
    "job_entry",
    metadata,
    Column("job_id", ForeignKey("job.job_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("status", String(10), nullable=False),
    Column("clip_id", Key, nullable=True),
    Column("problem", String(40), nullable=True),
    Column("detail", String(1000), nullable=True),
)
