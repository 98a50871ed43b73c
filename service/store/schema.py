"""The tables. One schema for every database that SQLAlchemy speaks to; migrations/ makes it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
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

metadata = MetaData()

# A key is never used again (AUTOINCREMENT), so that a bank cached for a deleted machine can never be taken
# for the bank of a machine of the same id that was created after it.
machine = Table(
    "machine",
    metadata,
    Column("machine_key", Integer, primary_key=True, autoincrement=True),
    Column("machine_id", String(64), nullable=False, unique=True),
    Column("description", String(500), nullable=False),
    Column("threshold_rule", String(9), nullable=False, server_default="conformal"),
    Column("false_alarm_rate", Float, nullable=True),  # null: the service's default
    Column("decision_threshold", Float, nullable=True),  # of the manual rule
    Column("embedding_space_id", String(200), nullable=True),  # null: nothing enrolled yet
    Column("generation", Integer, nullable=False),  # moves on with every change of the bank
    Column("created_at", DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)

# A machine that is made again goes on counting where its forerunner of the same id ended: an answer of the one can
# then never be taken for an answer of the other.
deleted_machine = Table(
    "retired",
    metadata,
    Column("machine_id", String(64), primary_key=True),
    Column("generation", Integer, nullable=False),  # the last one
)

clip = Table(
    "clip",
    metadata,
    Column("clip_id", Integer, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the bytes that were posted
    Column("name", String(255), nullable=False),
    Column("recording", String(255), nullable=True),  # null: the clip is a recording of its own
    Column("domain", String(6), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("sample_rate", Integer, nullable=False),  # Hz, of the file
    Column("channels", Integer, nullable=False),  # of the file
    Column("enrolled_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("machine_key", "sha256", name="clip_once_per_machine"),
    CheckConstraint("domain IN ('source', 'target')", name="clip_domain"),
    sqlite_autoincrement=True,
)

embedding = Table(
    "embedding",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("window", Integer, primary_key=True),  # 0, 1, ... in order of time
    Column("start_s", Float, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
    Column("checksum", BigInteger, nullable=False, server_default="0"),  # vectors.checksum
)

# The files of enrolled clips as they were posted; `clip.sha256` is their checksum. A table of its own, so that what
# reads clips does not read past them. None of clips that were enrolled while audio was not kept.
audio = Table(
    "audio",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("file", LargeBinary, nullable=False),
)

# What was measured of a clip's sound. Clips that were enrolled before it was measured have none.
acoustics = Table(
    "condition",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("level_dbfs", Float, nullable=False),
    Column("noise_floor_dbfs", Float, nullable=False),
    Column("bandwidth_hz", Float, nullable=False),
    Column("clipped", Float, nullable=False),  # share of samples
    Column("bands_dbfs", LargeBinary, nullable=False),  # float32, little-endian
)

# The background of a machine, without the machine.
noise = Table(
    "noise",
    metadata,
    Column("noise_id", Integer, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("embedding_space_id", String(200), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the bytes that were posted
    Column("name", String(255), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("vectors", LargeBinary, nullable=False),  # (windows, dim), float32, little-endian
    Column("checksum", BigInteger, nullable=False, server_default="0"),  # vectors.noise_checksum
    Column("enrolled_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("machine_key", "embedding_space_id", "sha256", name="noise_once_per_machine"),
    sqlite_autoincrement=True,
)

# As `audio`, of the background.
noise_audio = Table(
    "noise_audio",
    metadata,
    Column("noise_id", ForeignKey("noise.noise_id", ondelete="CASCADE"), primary_key=True),
    Column("file", LargeBinary, nullable=False),
)

# What was scored lately, up to RECENT_SCORES of a machine.
score = Table(
    "score",
    metadata,
    Column("score_id", Integer, primary_key=True, autoincrement=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("scored_at", DateTime(timezone=True), nullable=False),
    Column("generation", Integer, nullable=False),  # of the bank that was compared with
    Column("backend", String(50), nullable=False),
    Column("domain", String(6), nullable=False),  # of the nearest enrolled clip
    Column("anomaly_score", Float, nullable=False),
    CheckConstraint("domain IN ('source', 'target')", name="score_domain"),
    sqlite_autoincrement=True,
)

scores_of_machine = Index("scores_of_machine", score.c.machine_key, score.c.score_id)

# None of clips that were enrolled before there was this table, or with a bundle that gives none.
spectrogram = Table(
    "spectrogram",
    metadata,
    Column("clip_id", ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
    Column("window", Integer, primary_key=True),
    Column("bands", Integer, nullable=False),
    Column("cells", LargeBinary, nullable=False),  # float16, little-endian, (steps, bands)
    Column("checksum", BigInteger, nullable=False),
)

clips_of_machine = Index("clips_of_machine", clip.c.machine_key, clip.c.clip_id)

# Goes with its machine: an answer must not tell of clips that went with a deleted one.
idempotency = Table(
    "answered",
    metadata,
    Column("idempotency_key", String(255), primary_key=True),
    Column("machine_key", ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
    Column("fingerprint", String(64), nullable=False),  # sha256 of all that the answer depends on
    Column("answer", Text, nullable=False),  # JSON
    Column("answered_at", DateTime(timezone=True), nullable=False),
)

answered_by_time = Index("answered_by_time", idempotency.c.answered_at)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", String(12), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),  # with spaces between
    Column("machine_prefix", String(64), nullable=True),  # null: for all machines
    Column("secret_sha256", String(64), nullable=False),  # the secret itself is nowhere
    Column("rate_per_minute", Integer, nullable=True),  # requests; null: as many as come
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True), nullable=True),  # the row stays: a store that had a key is never open
)

# Refers to nothing, so that it outlives the machines and keys it tells of.
audit = Table(
    "audit",
    metadata,
    Column("audit_id", Integer, primary_key=True, autoincrement=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("who", String(64), nullable=False),  # name of the key
    Column("key_id", String(12), nullable=True),  # null: without a key
    Column("action", String(20), nullable=False),
    Column("machine_id", String(64), nullable=True),
    Column("detail", String(500), nullable=False),
    Column("request_id", String(32), nullable=True),  # null: by the command line
    sqlite_autoincrement=True,
)

# Names its machine and key rather than refer to them: what was done is told after they are gone.
job = Table(
    "job",
    metadata,
    Column("job_id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(10), nullable=False),
    Column("state", String(8), nullable=False),
    Column("machine_id", String(64), nullable=True),  # null: it is about the whole service
    Column("asked", Text, nullable=False),  # JSON, as its kind has it
    Column("total", Integer, nullable=True),  # null: not known yet
    Column("done", Integer, nullable=False, server_default="0"),
    Column("result", Text, nullable=True),
    Column("problem", String(40), nullable=True),
    Column("detail", String(1000), nullable=True),
    Column("who", String(64), nullable=False),  # name of the key
    Column("key_id", String(12), nullable=True),
    Column("machine_prefix", String(64), nullable=True),  # of the key
    Column("request_id", String(32), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=True),
    Column("ended_at", DateTime(timezone=True), nullable=True),
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
    Column("clip_id", Integer, nullable=True),
    Column("problem", String(40), nullable=True),
    Column("detail", String(1000), nullable=True),
)
