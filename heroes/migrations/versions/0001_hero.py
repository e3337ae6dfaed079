"""The tutorial's table. One that the tutorial app made is adopted as it is."""

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

INT64 = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    if not context.is_offline_mode() and sa.inspect(op.get_bind()).has_table("hero"):
        return
    op.create_table(
        "hero",
        sa.Column("id", INT64, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("age", INT64),
        sa.Column("secret_name", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_hero_name", "hero", ["name"])
    op.create_index("ix_hero_age", "hero", ["age"])


def downgrade() -> None:
    op.drop_table("hero")
