"""The database schema: whether it is current, and its upgrade at start-up on SQLite."""

from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask, current_app
from flask_migrate import upgrade
from sqlalchemy import Connection

from heroes.extensions import db


@cache
def outdated_revisions(directory: str) -> frozenset[str]:
    """Return the revisions of the schema that a migration in `directory` supersedes."""
    revisions = ScriptDirectory(directory).walk_revisions()
    return frozenset(script.revision for script in revisions if not script.is_head)


def is_behind(connection: Connection) -> bool:
    """Return whether the database lacks a migration. A revision unknown to this release is treated as newer."""
    revisions = MigrationContext.configure(connection).get_current_heads()
    directory = current_app.extensions["migrate"].directory
    return not revisions or not outdated_revisions(directory).isdisjoint(revisions)


def upgrade_at_start(app: Flask) -> None:
    """Migrate a SQLite database, whether it is new, the tutorial's or of an earlier release."""
    lock = app.extensions["heroes.writer_lock"]
    if lock is None:
        upgrade()
        return
    # A day: this process can't serve before another one has migrated, however long that takes.
    with lock.hold(timeout=24 * 3600):
        with db.engine.connect() as connection:
            behind = is_behind(connection)
        if behind:
            upgrade()
    # No connection may cross a fork (https://sqlite.org/howtocorrupt.html, 2.6).
    db.engine.dispose()
