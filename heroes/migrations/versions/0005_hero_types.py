"""The types of the models in a PostgreSQL table that the tutorial made: 64-bit integers, names by code point."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # SQLite's INTEGER has 64 bits. PostgreSQL leaves a column alone that has the type.
    if op.get_bind().dialect.name == "postgresql":
        for name in ("id", "age"):
            op.alter_column("hero", name, type_=sa.BigInteger)
        op.alter_column("hero", "name", type_=sa.String(collation="C"))
        op.execute("ALTER SEQUENCE IF EXISTS hero_id_seq AS BIGINT")


def downgrade() -> None:
    """Keep the types: earlier releases and the tutorial app work with them."""
