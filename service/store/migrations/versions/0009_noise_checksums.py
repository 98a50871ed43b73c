"""A checksum beside each clip of noise."""

import sqlalchemy as sa
from alembic import op

from service.store.embeddings import noise_checksum

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and fill it for what is there: from here on damage is noticed."""
    op.add_column("noise", sa.Column("checksum", sa.BigInteger, nullable=False, server_default="0"))
    connection = op.get_bind()
    for (noise_id,) in connection.execute(sa.text("SELECT noise_id FROM noise")).all():
        row = connection.execute(
            sa.text("SELECT machine_key, embedding_space_id, windows, vectors FROM noise WHERE noise_id = :noise"),
            {"noise": noise_id},
        ).one()
        connection.execute(
            sa.text("UPDATE noise SET checksum = :checksum WHERE noise_id = :noise"),
            {"checksum": noise_checksum(*row), "noise": noise_id},
        )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("noise", "checksum")
