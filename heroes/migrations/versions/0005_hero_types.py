"""The types of the models in a PostgreSQL table that the tutorial made: 64-bit integers, names by code point."""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"


TYPES: dict[str, Any] = {"id": sa.BigInteger(), "age": sa.BigInteger(), "name": sa.String(collation="C")}
DIFFERENT = """
    SELECT attname FROM pg_attribute LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE attrelid = 'hero'::regclass
    AND (attname IN ('id', 'age') AND atttypid <> 'bigint'::regtype OR attname = 'name' AND collname <> 'C')
"""


def upgrade() -> None:
    # SQLite's INTEGER has 64 bits.
    if context.get_context().dialect.name == "postgresql":
        # No other column: PostgreSQL alters none that a view uses, not even to the same type.
        offline = context.is_offline_mode()
        for name in TYPES if offline else op.get_bind().execute(sa.text(DIFFERENT)).scalars().all():
            op.alter_column("hero", name, type_=TYPES[name])
        op.execute("ALTER SEQUENCE IF EXISTS hero_id_seq AS BIGINT")


def downgrade() -> None:
    """Keep the types: earlier releases and the tutorial app work with them."""
