"""How Alembic runs here: one transaction for all migrations, so that all are applied, or none."""

import sqlite3
from collections import Counter
from typing import Any

from alembic import context
from sqlalchemy import Connection, Table, event

from heroes.extensions import db

# The service's timeouts are too short for a migration, and for waiting until another one has finished. Table locks keep
# their timeout: all statements would queue behind one that waits for such a lock. The advisory lock's key is arbitrary.
POSTGRESQL = [
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL lock_timeout = 0",
    "SELECT pg_advisory_xact_lock(1212502867)",
    "SET LOCAL lock_timeout TO DEFAULT",
]
# Alembic alters a table by replacing it with a copy (https://sqlite.org/lang_altertable.html#otheralter). With foreign
# keys on, that would delete the rows that refer to it. They can't be turned off in a transaction.
SQLITE = ["PRAGMA foreign_keys = OFF", "BEGIN IMMEDIATE"]
# Programs that don't turn foreign keys on, such as the tutorial's, leave broken references. A migration must add none.
# The copy of a table keeps rowids, but may number the foreign keys differently.
BROKEN = 'SELECT "table", rowid, parent FROM pragma_foreign_key_check'
AUTOINCREMENT = "SELECT name FROM sqlite_master WHERE name = ? AND sql LIKE '%AUTOINCREMENT%'"
LAST_ID = "INSERT INTO sqlite_sequence SELECT ?, seq FROM sqlite_sequence WHERE name = ?"


def keep_autoincrement(table: Table, connection: Connection, **_: Any) -> None:
    """Give Alembic's copy of a table AUTOINCREMENT and the last id that was given out, if the table has them."""
    name = table.name.removeprefix("_alembic_tmp_")
    if name != table.name and connection.exec_driver_sql(AUTOINCREMENT, (name,)).all():
        table.dialect_options["sqlite"]["autoincrement"] = True
        connection.exec_driver_sql(LAST_ID, (table.name, name))


with db.engine.connect() as connection:
    sqlite = connection.dialect.name == "sqlite"
    event.listen(Table, "before_create", keep_autoincrement)
    try:
        for statement in SQLITE if sqlite else POSTGRESQL:
            connection.exec_driver_sql(statement)
        before: Counter[Any] = Counter(connection.exec_driver_sql(BROKEN) if sqlite else [])
        # Batch mode also if a migration is written on PostgreSQL: SQLite can't alter a constraint in place.
        context.configure(connection, target_metadata=db.metadata, transactional_ddl=True, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
        if sqlite and (broken := Counter(connection.exec_driver_sql(BROKEN)) - before):
            first, *_ = broken
            message = f"{broken.total()} rows refer to rows that do not exist, the first in table {first[0]}"
            raise sqlite3.IntegrityError(message)
        connection.commit()
    finally:
        event.remove(Table, "before_create", keep_autoincrement)
        if sqlite:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
