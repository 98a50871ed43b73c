"""The files of enrolled clips and of noise."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, empty: what was enrolled before was not kept."""
    for table, owner in (("audio", "clip"), ("noise_audio", "noise")):
        key = f"{owner}_id"
        op.create_table(
            table,
            sa.Column(key, sa.Integer, sa.ForeignKey(f"{owner}.{key}", ondelete="CASCADE"), primary_key=True),
            sa.Column("file", sa.LargeBinary, nullable=False),
        )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("noise_audio")
    op.drop_table("audio")
