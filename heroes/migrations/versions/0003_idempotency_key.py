"""The Idempotency-Keys of a day, each with its first response."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

INT64 = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("answer", sa.JSON),
        if_not_exists=True,
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"], if_not_exists=True)


def downgrade() -> None:
    op.drop_table("idempotency_key")
