"""The table `hero` of a SQLite file, read and reset beside the server that uses it."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

Row = tuple[int, str, int | None, str]

FEW: list[Row] = [(1, "Halo", None, "Ines Roth"), (2, "Brook", 31, "Bo Linde"), (3, "Quill", 48, "Quentin Moss")]
MANY: list[Row] = [(number, f"Hero {number}", number % 7 or None, f"Secret {number}") for number in range(1, 106)]
SEEDS: dict[str, list[Row]] = {"few": FEW, "many": MANY, "none": []}


class Table:
    """The heroes in a SQLite file."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        # What a test resets may be lost with the power.
        self.connection.execute("PRAGMA synchronous = OFF")
        self.counts_ids = self._has("sqlite_sequence")
        self.version, self.known, self.clean = -1, list[Row](), False

    def close(self) -> None:
        """Closes the file."""
        self.connection.close()

    def rows(self) -> list[Row]:
        """All heroes by id; read again only where someone else has written since."""
        [(version,)] = self.connection.execute("PRAGMA data_version")
        if version != self.version:
            self.version, self.clean = version, False
            self.known = list(self.connection.execute("SELECT id, name, age, secret_name FROM hero ORDER BY id"))
        return self.known

    def reset(self, rows: Sequence[Row]) -> None:
        """Makes these rows all there is, the next id being the one behind the highest."""
        if self.rows() == rows and self.clean:
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute("DELETE FROM hero")
        if self.counts_ids:
            self.connection.execute("DELETE FROM sqlite_sequence")
        self.connection.executemany("INSERT INTO hero (id, name, age, secret_name) VALUES (?, ?, ?, ?)", rows)
        self.connection.execute("COMMIT")
        self.known, self.clean = list(rows), True

    def _has(self, table: str) -> bool:
        return bool(self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchall())
