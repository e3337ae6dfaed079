"""The database schema: whether it is current."""

from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection, inspect

from heroes.extensions import db


@cache
def known_revisions(directory: str) -> dict[str, bool]:
    """Return the revisions of the schema, and whether each is the newest. directory: that of Flask-Migrate."""
    scripts = ScriptDirectory.from_config(current_app.extensions["migrate"].migrate.get_config(directory))
    return {script.revision: script.is_head for script in scripts.walk_revisions()}


def is_behind(connection: Connection) -> bool:
    """Return whether the database lacks a migration.

    A revision unknown to this release is a newer one if the tables have all columns, otherwise another program's.
    """
    migrate = current_app.extensions["migrate"]
    known = known_revisions(migrate.directory)
    current = set(MigrationContext.configure(connection, opts=migrate.configure_args).get_current_heads())
    if current <= known.keys():
        return current != {revision for revision, newest in known.items() if newest}
    columns = inspect(connection).get_multi_columns()
    found = {(table, column["name"]) for (_, table), described in columns.items() for column in described}
    return any((name, column.name) not in found for name, table in db.metadata.tables.items() for column in table.c)
