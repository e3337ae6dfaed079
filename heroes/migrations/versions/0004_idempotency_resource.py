"""The table that an Idempotency-Key was used for. Earlier releases had only one."""

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # A copy of the tables alone, without Alembic's, has the column already.
    if not context.is_offline_mode():
        columns = sa.inspect(op.get_bind()).get_columns("idempotency_key")
        if "resource" in {column["name"] for column in columns}:
            return
    op.add_column("idempotency_key", sa.Column("resource", sa.String, nullable=False, server_default="hero"))


def downgrade() -> None:
    op.drop_column("idempotency_key", "resource")
