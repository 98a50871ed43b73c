"""Names of the glossary, and the oldest generation that the guard may compare with."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = (("retired", "deleted_machine"), ("condition", "acoustics"), ("answered", "idempotency"))
_COLUMNS = (
    ("idempotency", "answer", "response"),
    ("idempotency", "answered_at", "stored_at"),
    ("job", "asked", "parameters"),
)


def upgrade() -> None:
    """Rename tables and columns, and add the column."""
    op.drop_index("answered_by_time")
    for old, new in _TABLES:
        op.rename_table(old, new)
    for table, old, new in _COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    op.create_index("idempotency_by_time", "idempotency", ["stored_at"])
    op.add_column("machine", sa.Column("guard_generation", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("machine", "guard_generation")
    op.drop_index("idempotency_by_time")
    for table, old, new in _COLUMNS:
        op.alter_column(table, new, new_column_name=old)
    for old, new in _TABLES:
        op.rename_table(new, old)
    op.create_index("answered_by_time", "answered", ["answered_at"])
