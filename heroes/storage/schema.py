"""The database schema: whether it is current."""

from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection


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
