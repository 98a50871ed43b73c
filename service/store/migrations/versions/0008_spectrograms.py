"""Coarse spectrograms of enrolled windows, for localization."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, empty: there is no audio to make those of earlier clips from."""
    op.create_table(
        "spectrogram",
        sa.Column("clip_id", sa.Integer, sa.ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("window", sa.Integer, primary_key=True),
        sa.Column("bands", sa.Integer, nullable=False),
        sa.Column("cells", sa.LargeBinary, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("spectrogram")
