"""A version for each hero, behind its ETag. The default lets the tutorial app, which doesn't know it, keep writing."""

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"

INT64 = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # A copy of the tables alone, without Alembic's, has the column already.
    if not context.is_offline_mode():
        columns = sa.inspect(op.get_bind()).get_columns("hero")
        if "version" in {column["name"] for column in columns}:
            return
    op.add_column("hero", sa.Column("version", INT64, nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("hero", "version")
