"""A checksum beside each embedding."""

import sqlalchemy as sa
from alembic import op

from service.store.embeddings import checksum

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AT_ONCE = 1_000


def upgrade() -> None:
    """Add the column, and fill it for what is there: from here on damage is noticed."""
    op.add_column("embedding", sa.Column("checksum", sa.BigInteger, nullable=False, server_default="0"))
    connection = op.get_bind()
    after = (-1, -1)
    while rows := connection.execute(
        sa.text(
            'SELECT c.machine_key, c.domain, e.clip_id, e."window", '
            "(SELECT count(*) FROM embedding o WHERE o.clip_id = e.clip_id) AS windows, e.start_s, e.vector "
            'FROM embedding e JOIN clip c ON c.clip_id = e.clip_id WHERE (e.clip_id, e."window") > (:clip, :window) '
            'ORDER BY e.clip_id, e."window" LIMIT :most'
        ),
        {"clip": after[0], "window": after[1], "most": _AT_ONCE},
    ).all():
        connection.execute(
            sa.text('UPDATE embedding SET checksum = :checksum WHERE clip_id = :clip AND "window" = :window'),
            [{"checksum": checksum(*row), "clip": row.clip_id, "window": row.window} for row in rows],
        )
        after = (rows[-1].clip_id, rows[-1].window)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("embedding", "checksum")
