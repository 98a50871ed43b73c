"""Machines, their clips, and the clips' embeddings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "machine",
        sa.Column("machine_key", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("machine_id", sa.String(64), nullable=False, unique=True),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("false_alarm_rate", sa.Float, nullable=True),
        sa.Column("embedding_space_id", sa.String(200), nullable=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "clip",
        sa.Column("clip_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column(
            "machine_key",
            sa.Integer,
            sa.ForeignKey("machine.machine_key", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("domain", sa.String(6), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("sample_rate", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("machine_key", "sha256", name="clip_once_per_machine"),
        sa.CheckConstraint("domain IN ('source', 'target')", name="clip_domain"),
        sqlite_autoincrement=True,
    )
    op.create_index("clips_of_machine", "clip", ["machine_key", "clip_id"])
    op.create_table(
        "embedding",
        sa.Column("clip_id", sa.Integer, sa.ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("window", sa.Integer, primary_key=True),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("embedding", "clip", "machine"):
        op.drop_table(table)
