"""The tables. A change here needs a migration in migrations/versions; a test compares the two."""

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from heroes.extensions import Model

# SQLite's INTEGER holds 64 bits, and only under that name does it make an AUTOINCREMENT key.
Int64 = BigInteger().with_variant(Integer, "sqlite")


class Hero(Model):
    """A hero. `secret_name` goes in and never comes out."""

    __tablename__ = "hero"
    # Without AUTOINCREMENT SQLite gives the highest id out again after its row is deleted.
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Int64, primary_key=True)
    name: Mapped[str] = mapped_column(String, index=True)
    age: Mapped[int | None] = mapped_column(Int64, index=True)
    secret_name: Mapped[str] = mapped_column(String)
