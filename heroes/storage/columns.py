"""Column types, and what every resource's table has."""

from secrets import randbits
from typing import Any

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

# SQLite's INTEGER holds 64 bits, and only a column of exactly that type can be an AUTOINCREMENT key.
Int64 = BigInteger().with_variant(Integer, "sqlite")
# By code point on both databases: SQLite's own order, independent of the locale of a PostgreSQL server.
Text = String().with_variant(String(collation="C"), "postgresql")


def random_version() -> int:
    """Return a version that, in all likelihood, no row had before."""
    return 1 + randbits(49)


class ResourceMixin:
    """The columns of a resource: an id that is never reused, and a version for its ETag."""

    # Without AUTOINCREMENT SQLite reuses the highest id after its row is deleted.
    __table_args__: Any = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(Int64, primary_key=True, sort_order=-1)
    # Random, so that an ETag never stands for two contents, even if an id is reused or a backup restored. The server's
    # default is for programs that don't know the column, like the tutorial.
    version: Mapped[int] = mapped_column(
        Int64, default=random_version, onupdate=random_version, server_default="1", sort_order=1
    )
