"""Execute the statements of resources.

Each runs in its own transaction on its own connection, without `db.session`. A view that uses the session as well needs
a second connection of the pool. Going through a session would cost a read about a third more CPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Executable

from heroes.extensions import db
from heroes.storage.locks import writer_lock
from heroes.storage.sqlite import check_files

Row = dict[str, Any]

# Execution options of a connection for one statement. On PostgreSQL BEGIN and ROLLBACK are round trips; SQLite's driver
# sends no BEGIN before a SELECT. Options of the engine would do the same more slowly.
ONE_STATEMENT: dict[str, dict[str, Any]] = {"postgresql": {"isolation_level": "AUTOCOMMIT"}, "sqlite": {}}


def fetch(connection: Connection, statement: Executable, values: Mapping[str, Any]) -> list[Row]:
    """Execute a statement and return its rows as dicts."""
    result = connection.execute(statement, values)
    names = tuple(result.keys())
    return [dict(zip(names, row)) for row in result.all()]  # noqa: B905 - a row has a value for each name


def connect() -> Connection:
    """Return a connection for one statement."""
    engine = db.engine
    return engine.connect().execution_options(**ONE_STATEMENT[engine.dialect.name])


def read(statement: Executable, values: Mapping[str, Any]) -> list[Row]:
    """Execute a statement that reads, and return its rows."""
    with connect() as connection:
        return fetch(connection, statement, values)


def write(statement: Executable, values: Mapping[str, Any]) -> Row | None:
    """Execute a statement that writes, commit, and return the row it RETURNs; it is on disk when this returns."""
    # The connection comes before the lock: nobody who holds the lock waits for the pool.
    with connect() as connection, writer_lock(), connection.begin():
        check_files(connection)
        rows = fetch(connection, statement, values)
    return rows[0] if rows else None


@contextmanager
def transaction() -> Iterator[Connection]:
    """Run several statements in one transaction. The first must write, so that SQLite takes the write lock at once."""
    with db.engine.connect() as connection, writer_lock(), connection.begin():
        check_files(connection)
        yield connection
