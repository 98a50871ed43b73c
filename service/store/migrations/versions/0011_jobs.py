"""Jobs and what became of their entries."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "job",
        sa.Column("job_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("machine_id", sa.String(64), nullable=True),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("total", sa.Integer, nullable=True),
        sa.Column("done", sa.Integer, nullable=False, server_default="0"),
        sa.Column("result", sa.Text, nullable=True),
        sa.Column("problem", sa.String(40), nullable=True),
        sa.Column("detail", sa.String(1000), nullable=True),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(12), nullable=True),
        sa.Column("machine_prefix", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "job", ["state", "job_id"])
    op.create_table(
        "job_entry",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.job_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("clip_id", sa.Integer, nullable=True),
        sa.Column("problem", sa.String(40), nullable=True),
        sa.Column("detail", sa.String(1000), nullable=True),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("job_entry")
    op.drop_index("jobs_by_state")
    op.drop_table("job")
