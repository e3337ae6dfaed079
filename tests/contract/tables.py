"""Read and reset the table `hero` while a server uses it."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Row = tuple[int, str, int | None, str]

FEW: list[Row] = [(1, "Halo", None, "Ines Roth"), (2, "Brook", 31, "Bo Linde"), (3, "Quill", 48, "Quentin Moss")]
MANY: list[Row] = [(number, f"Hero {number}", number % 7 or None, f"Secret {number}") for number in range(1, 106)]
SEEDS: dict[str, list[Row]] = {"few": FEW, "many": MANY, "none": []}


READ = "SELECT id, name, age, secret_name FROM hero ORDER BY id"


class Table(Protocol):
    """The heroes in a database."""

    def close(self) -> None:
        """Close the database connection."""

    def rows(self) -> list[Row]:
        """Return all heroes, ordered by id."""

    def reset(self, rows: Sequence[Row]) -> None:
        """Replace all rows with these; the next id is the highest plus one."""


class SQLiteTable:
    """The heroes in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        # Durability does not matter for a test's rows.
        self.connection.execute("PRAGMA synchronous = OFF")
        self.counts_ids = self._has("sqlite_sequence")
        self.version, self.cached, self.clean = -1, list[Row](), False

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def rows(self) -> list[Row]:
        """Return all heroes; read them again only if another connection has written since."""
        [(version,)] = self.connection.execute("PRAGMA data_version")
        if version != self.version:
            self.version, self.clean = version, False
            self.cached = list(self.connection.execute(READ))
        return self.cached

    def reset(self, rows: Sequence[Row]) -> None:
        """Replace all rows with these and reset the ids, unless that is already so."""
        if self.rows() == rows and self.clean:
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("DELETE FROM hero")
        if self.counts_ids:
            self.connection.execute("DELETE FROM sqlite_sequence")
        self.connection.executemany("INSERT INTO hero (id, name, age, secret_name) VALUES (?, ?, ?, ?)", rows)
        self.connection.execute("COMMIT")
        self.cached, self.clean = list(rows), True

    def _has(self, table: str) -> bool:
        return bool(self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchall())


class PostgresTable:
    """The heroes in a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True)
        # Durability does not matter for a test's rows.
        self.connection.execute("SET synchronous_commit = off")
        [[self.sequence]] = self.connection.execute("SELECT pg_get_serial_sequence('hero', 'id')").fetchall()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def rows(self) -> list[Row]:
        """Return all heroes."""
        return self.connection.execute(READ).fetchall()

    def reset(self, rows: Sequence[Row]) -> None:
        """Replace all rows with these and reset the sequence, unless that is already so."""
        clean = (max((row[0] for row in rows), default=0) + 1, False)
        counted = self.connection.execute(f"SELECT last_value, is_called FROM {self.sequence}").fetchone()
        if self.rows() == rows and counted == clean:
            return
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute("DELETE FROM hero")
            cursor.executemany("INSERT INTO hero (id, name, age, secret_name) VALUES (%s, %s, %s, %s)", rows)
            cursor.execute("SELECT setval(%s, %s, %s)", [self.sequence, *clean])


def table_of(url: str) -> Table:
    """Return the table in the database at a SQLAlchemy URL."""
    if url.startswith("sqlite:///"):
        return SQLiteTable(Path(url.removeprefix("sqlite:///")))
    return PostgresTable(url.replace("+psycopg", "", 1))
