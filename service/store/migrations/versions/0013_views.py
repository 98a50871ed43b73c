"""Slices, variants and cuts of enrolled clips, for the event view and for scores by length; codecs of clips."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and the column, empty: they need the audio of the clips.

    Moving a bank to another bundle fills them.
    """
    op.add_column("acoustics", sa.Column("codec", sa.String(32), nullable=True))
    op.create_table(
        "slices",
        sa.Column("clip_id", sa.Integer, sa.ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("window", sa.Integer, primary_key=True),
        sa.Column("bands", sa.Integer, nullable=False),
        sa.Column("cells", sa.LargeBinary, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "piece",
        sa.Column("clip_id", sa.Integer, sa.ForeignKey("clip.clip_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(7), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("bands", sa.Integer, nullable=False),
        sa.Column("cells", sa.LargeBinary, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.CheckConstraint("kind IN ('variant', 'cut')", name="piece_kind"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("piece")
    op.drop_table("slices")
    op.drop_column("acoustics", "codec")
