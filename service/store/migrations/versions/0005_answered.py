"""Answers by `Idempotency-Key`."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "answered",
        sa.Column("idempotency_key", sa.String(255), primary_key=True),
        sa.Column("machine_key", sa.Integer, sa.ForeignKey("machine.machine_key", ondelete="CASCADE"), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("answered_by_time", "answered", ["answered_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("answered")
