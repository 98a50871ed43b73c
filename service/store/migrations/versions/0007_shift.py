"""Conditions of enrolled clips, the background of machines, and what was scored lately."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "condition",
        sa.Column("clip_id", sa.Integer, sa.ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("level_dbfs", sa.Float, nullable=False),
        sa.Column("noise_floor_dbfs", sa.Float, nullable=False),
        sa.Column("bandwidth_hz", sa.Float, nullable=False),
        sa.Column("clipped", sa.Float, nullable=False),
        sa.Column("bands_dbfs", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "noise",
        sa.Column("noise_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("machine_key", sa.Integer, sa.ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
        sa.Column("embedding_space_id", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("windows", sa.Integer, nullable=False),
        sa.Column("vectors", sa.LargeBinary, nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("machine_key", "embedding_space_id", "sha256", name="noise_once_per_machine"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "score",
        sa.Column("score_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("machine_key", sa.Integer, sa.ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("backend", sa.String(50), nullable=False),
        sa.Column("domain", sa.String(6), nullable=False),
        sa.Column("anomaly_score", sa.Float, nullable=False),
        sa.CheckConstraint("domain IN ('source', 'target')", name="score_domain"),
        sqlite_autoincrement=True,
    )
    op.create_index("scores_of_machine", "score", ["machine_key", "score_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("score")
    op.drop_table("noise")
    op.drop_table("condition")
