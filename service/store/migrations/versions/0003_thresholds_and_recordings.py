"""Rules of the decision threshold, and the recording that a clip was cut from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("machine", sa.Column("threshold_rule", sa.String(9), nullable=False, server_default="conformal"))
    op.add_column("machine", sa.Column("decision_threshold", sa.Float, nullable=True))
    op.add_column("clip", sa.Column("recording", sa.String(255), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("clip", "recording")
    op.drop_column("machine", "decision_threshold")
    op.drop_column("machine", "threshold_rule")
