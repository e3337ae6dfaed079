"""The tables. A change here needs a migration in migrations/versions; a test compares the two."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from heroes.extensions import Model

# SQLite's INTEGER holds 64 bits, and only under that name does it make an AUTOINCREMENT key.
Int64 = BigInteger().with_variant(Integer, "sqlite")
# By code point on both databases: SQLite's own order, and one that the locale of a PostgreSQL server doesn't change.
Text = String().with_variant(String(collation="C"), "postgresql")


class Hero(Model):
    """A hero. `secret_name` goes in and never comes out."""

    __tablename__ = "hero"
    # Without AUTOINCREMENT SQLite gives the highest id out again after its row is deleted.
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Int64, primary_key=True)
    name: Mapped[str] = mapped_column(Text, index=True)
    age: Mapped[int | None] = mapped_column(Int64, index=True)
    secret_name: Mapped[str] = mapped_column(String)
    # Counts the changes, for the ETag.
    version: Mapped[int] = mapped_column(Int64, server_default="1")


class IdempotencyKey(Model):
    """A POST that was sent with an Idempotency-Key, and the answer it got."""

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(String, primary_key=True)
    # SHA-256 of the hero that was sent.
    fingerprint: Mapped[str] = mapped_column(String)
    # Seconds since 1970.
    created_at: Mapped[int] = mapped_column(Int64, index=True)
    # The hero's public columns and its version, in the order of PUBLIC.
    answer: Mapped[list[Any] | None] = mapped_column(JSON)
