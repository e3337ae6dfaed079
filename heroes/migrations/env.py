"""How Alembic runs here: one transaction for all migrations, so that a schema is whole or unchanged."""

import sqlite3
from typing import Any

from alembic import context
from sqlalchemy import Connection, Table, event

from heroes.extensions import db

# The service's timeouts are too short for a migration, and for waiting until another one is through. Locks on tables
# keep theirs: everybody else would queue behind a statement that waits for one. The lock's key is arbitrary.
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
        # Batch mode also if a migration is written on PostgreSQL: SQLite can't alter a constraint in place.
        context.configure(connection, target_metadata=db.metadata, transactional_ddl=True, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            message = f"{len(broken)} rows refer to rows that do not exist, the first in table {broken[0][0]}"
            raise sqlite3.IntegrityError(message)
        connection.commit()
    finally:
        event.remove(Table, "before_create", keep_autoincrement)
        if sqlite:
            connection.rollback()
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
