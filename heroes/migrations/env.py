"""How Alembic runs here: one transaction for all migrations, so that all are applied, or none."""

import sqlite3
from collections import Counter
from typing import Any

from alembic import context
from flask import current_app
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
    """Give Alembic's copy of a table AUTOINCREMENT and the last id, if the table has them."""
    name = table.name.removeprefix("_alembic_tmp_")
    if name != table.name and connection.exec_driver_sql(AUTOINCREMENT, (name,)).all():
        table.dialect_options["sqlite"]["autoincrement"] = True
        connection.exec_driver_sql(LAST_ID, (table.name, name))


def drop_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Keep `flask db migrate` from writing a migration if nothing has changed."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives.clear()
        context.config.print_stdout("No changes in schema detected.")


# Flask-Migrate's options; by default also batch mode, because SQLite can't alter a constraint in place.
options = {"process_revision_directives": drop_empty} | current_app.extensions["migrate"].configure_args
options |= {"target_metadata": db.metadata, "transactional_ddl": True}


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction."""
    sqlite = connection.dialect.name == "sqlite"
    event.listen(Table, "before_create", keep_autoincrement)
    try:
        for statement in SQLITE if sqlite else POSTGRESQL:
            connection.exec_driver_sql(statement)
        before: Counter[Any] = Counter(connection.exec_driver_sql(BROKEN) if sqlite else [])
        context.configure(connection, **options)
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


if context.is_offline_mode():  # flask db upgrade --sql
    output: dict[str, Any] = {"literal_binds": True, "dialect_opts": {"paramstyle": "named"}}
    context.configure(dialect_name=db.engine.dialect.name, **output, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with db.engine.connect() as connected:
        migrate(connected)
