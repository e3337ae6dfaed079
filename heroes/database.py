"""The database: engine settings for each dialect, the one way to write, the schema at start-up."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import URL, Executable, Row, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from heroes.config import ConfigError
from heroes.extensions import db, migrate

MIGRATIONS = str(Path(__file__).parent / "migrations")


def execute(statement: Executable, values: Mapping[str, Any]) -> Row[Any] | None:
    """Runs one writing statement in one transaction, committed when this returns: the row it RETURNs, or None."""
    row = db.session.execute(statement, values).one_or_none()
    db.session.commit()
    return row


def engine_options(url: URL, timeout: int, threads: int) -> tuple[URL, dict[str, Any]]:
    """The URL as SQLAlchemy wants it and the options of its engine.

    timeout: seconds to wait for a lock or a connection; threads: how many of the process use the pool.
    """
    # Parameters stay out of error messages: one of them is the secret.
    options: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() != "sqlite":
        return url, options
    options["connect_args"] = {"timeout": timeout, "check_same_thread": False}
    if url.database in (None, "", ":memory:"):
        return url, options
    options |= {"pool_size": threads, "max_overflow": 0, "pool_timeout": timeout}
    # Relative to where the server was started, as in the tutorial; Flask-SQLAlchemy would take the instance folder.
    return url.set(database=os.path.abspath(url.database or "")), options


def prepare_connection(connection: sqlite3.Connection, _: Any) -> None:
    """Sets what SQLite keeps per connection."""
    # FULL costs one fsync a commit; NORMAL would lose acknowledged writes when the power goes.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def only_one_start(directory: str) -> Iterator[None]:
    """Holds a lock on the database's directory, so that of several starting processes one makes the schema.

    It is the directory's because closing any descriptor of the database file would drop SQLite's own locks on it
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_schema(url: URL) -> None:
    """Brings a SQLite database to the newest schema; made new, adopted from the tutorial, or already there."""
    if url.database in (None, "", ":memory:"):
        upgrade()
        return
    with only_one_start(os.path.dirname(url.database)):
        with db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        upgrade()
    # No connection may cross a fork (https://sqlite.org/howtocorrupt.html, 2.6).
    db.engine.dispose()


def init_app(app: Flask) -> None:
    """Binds the database to the app. Raises ConfigError where its URL can't be used."""
    try:
        url = make_url(app.config["SQLALCHEMY_DATABASE_URI"])
        url, options = engine_options(url, app.config["DATABASE_TIMEOUT"], app.config["GUNICORN_THREADS"])
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
        db.init_app(app)
    except ArgumentError:
        raise ConfigError("DATABASE_URL: not a database URL") from None
    migrate.init_app(app, directory=MIGRATIONS)
    if url.get_backend_name() == "sqlite":
        with app.app_context():
            event.listen(db.engine, "connect", prepare_connection)
            try:
                make_schema(url)
            except (OSError, OperationalError) as error:
                raise ConfigError(f"DATABASE_URL: {getattr(error, 'orig', error)}") from error
