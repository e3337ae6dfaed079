"""The database: engine settings for each dialect, the one way to write, the schema at start-up."""

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, cast

from click import Command
from flask import Flask, current_app
from sqlalchemy import URL, Connection, CursorResult, ExceptionContext, Executable, Row, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.local import LocalProxy

from heroes.config import ConfigError
from heroes.extensions import db

BEGIN = text("BEGIN")
REVISIONS = text("SELECT version_num FROM alembic_version")
MIGRATIONS = Path(__file__).parent / "migrations"
READ_ONLY = "25006"  # PostgreSQL's code for a write on a standby or on a server that was made read-only
# The first release without the WAL-reset bug, of the lines that it was fixed in and of all others
# (https://sqlite.org/wal.html#walresetbug).
FIXED_SQLITE = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}
FIXED_SQLITE_SINCE = (3, 51, 3)


def execute(statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
    """Runs one statement on the connection of the request's session: outside `transaction` it is one of its own, done,
    and on the disk, when its rows are read."""
    return db.session.connection().execute(statement, values)


def write(statement: Executable, values: Mapping[str, Any]) -> Row[Any] | None:
    """Runs one writing statement in its turn, committed when this returns: the row it RETURNs, or None."""
    with turn():
        return execute(statement, values).one_or_none()


@contextmanager
def transaction() -> Iterator[None]:
    """Makes one transaction of several statements, the first of which writes. Where something is raised it is undone
    with the request's session."""
    with turn():
        connection = db.session.connection()
        connection.execute(BEGIN)
        yield
        connection.commit()


@contextmanager
def turn(patience: float | None = None) -> Iterator[None]:
    """Lets the writers to one SQLite file, in all threads and processes, wait for each other in the kernel.

    SQLite has one writer at a time, and those that wait for it sleep and ask again, some for seconds. The lock is on
    the directory because closing any descriptor of the database file itself would drop SQLite's own locks on it
    (https://sqlite.org/howtocorrupt.html, 2.2); it goes with the process that holds it.

    patience: seconds, DATABASE_TIMEOUT by default. Raises PoolTimeout where the turn comes later than that: the one
    before may have waited as long for another program's lock, and those waits must not add up.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    directory = app.extensions["heroes"]["sqlite_directory"]
    if directory is None:
        yield
        return
    deadline = time.monotonic() + (patience or app.config["DATABASE_TIMEOUT"])
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if time.monotonic() > deadline:
            raise PoolTimeout("waited too long for other writers")
        yield
    finally:
        os.close(descriptor)


def pool_options(timeout: int, threads: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A pool with a connection for each thread, so that none waits for another's."""
    return {"pool_size": threads, "max_overflow": 0, "pool_timeout": timeout, "connect_args": arguments}


def sqlite_options(text: str, timeout: int, threads: int) -> tuple[URL, dict[str, Any]]:
    """See engine_options. A path is relative to where the server is started, as in the tutorial."""
    url = make_url(text)
    if url.host:
        raise ValueError("a file has no host")
    arguments = {"timeout": timeout, "check_same_thread": False}
    if url.database in (None, "", ":memory:"):
        return url, {"connect_args": arguments}
    return url.set(database=os.path.abspath(url.database)), pool_options(timeout, threads, arguments)


def postgres_options(text: str, timeout: int, threads: int) -> tuple[URL, dict[str, Any]]:
    """See engine_options. libpq reads the URL itself, so it may say whatever libpq knows: several hosts, sslmode, …
    (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING)
    """
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict("postgresql://" + text.split("://", 1)[1])
    server = {
        "statement_timeout": f"{timeout}s",
        "lock_timeout": f"{timeout}s",
        # Of a host that is gone the server would keep locks and sessions for hours: nothing tells it.
        "idle_in_transaction_session_timeout": f"{timeout}s",
        "tcp_keepalives_idle": "10s",
        "tcp_keepalives_interval": "5s",
        "tcp_keepalives_count": "2",
    }
    defaults: dict[str, Any] = {
        "connect_timeout": 2,  # seconds, for each host
        "tcp_user_timeout": 2000,  # milliseconds until a peer that doesn't acknowledge is given up
        "application_name": "heroes",
        "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
    }
    if not set(str(given.get("port", ""))) <= set("0123456789,"):
        raise ValueError("a port is a number")
    if "," in str(given.get("host", "")):
        # Of a primary and its standbys the one that takes writes, also after a failover.
        defaults["target_session_attrs"] = "read-write"
    return URL.create("postgresql+psycopg"), pool_options(timeout, threads, defaults | given) | {"pool_pre_ping": True}


DIALECTS = {
    "sqlite": sqlite_options,
    "postgres": postgres_options,
    "postgresql": postgres_options,
    "postgresql+psycopg": postgres_options,
}


def engine_options(text: str, timeout: int, threads: int) -> tuple[URL, dict[str, Any]]:
    """A database URL as SQLAlchemy wants it, and the options of its engine.

    timeout: seconds to wait for a lock, a connection or a statement; threads: how many of the process use the pool.
    Raises ConfigError where the URL can't be used.
    """
    scheme = text.partition(":")[0]
    if scheme not in DIALECTS:
        raise ConfigError("DATABASE_URL: Must be a sqlite:// or a postgresql:// URL.")
    try:
        url, options = DIALECTS[scheme](text, timeout, threads)
    except ModuleNotFoundError:
        raise ConfigError("DATABASE_URL: PostgreSQL needs the extra: pip install heroes[postgres]") from None
    except Exception:
        # The driver's own words would show the password.
        raise ConfigError("DATABASE_URL: Not a valid URL.") from None
    # Each statement is a transaction of its own, without a BEGIN and a COMMIT to be sent around it. No parameters in
    # the messages of errors: one of them is the secret.
    return url, options | {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}


def prepare_connection(connection: sqlite3.Connection, _: object) -> None:
    """Sets what SQLite keeps per connection."""
    try:
        # FULL costs one fsync a commit; NORMAL would lose acknowledged writes when the power goes.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        # The pool never learns of a connection that fails here: of a file that is damaged, or no database.
        connection.close()
        raise


def prepare_error(context: ExceptionContext) -> None:
    """Looks at PostgreSQL's errors before they are raised."""
    error, wrapped = context.original_exception, context.sqlalchemy_exception
    # A primary that became read-only was replaced: without its connections the next request finds the new one.
    if getattr(error, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
    # DETAIL and CONTEXT quote the row, secret_name included.
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if message and wrapped:
        wrapped.args = (wrapped.args[0].replace(str(error), message),)
        error.args = (message,)


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether a release of SQLite can damage a database in WAL mode when two connections write at the same moment."""
    return version < FIXED_SQLITE.get(version[:2], FIXED_SQLITE_SINCE)


@cache
def outdated_revisions() -> frozenset[str]:
    """The revisions of the schema that this release has a migration beyond. Read without Alembic: see bind_migrate."""
    migrations = [path.read_text() for path in (MIGRATIONS / "versions").glob("*.py")]
    return frozenset(re.findall(r"^down_revision = ['\"](\w+)['\"]", "\n".join(migrations), re.MULTILINE))


def is_behind(connection: Connection) -> bool:
    """Whether the database lacks a migration; one at the unknown revision of a later release lacks none."""
    if not inspect(connection).has_table("alembic_version"):
        return True
    revisions = connection.execute(REVISIONS).scalars().all()
    return not revisions or not outdated_revisions().isdisjoint(revisions)


def bind_migrate(app: Flask) -> None:
    """Binds Flask-Migrate, with its commands, to the app when either is first wanted: Alembic takes a fifth of a start,
    and a server whose schema is the newest has no use for it."""

    def bound() -> Flask:
        from flask_migrate import Migrate

        Migrate(app, db, directory=str(MIGRATIONS))
        return app

    app.extensions["migrate"] = LocalProxy(lambda: bound().extensions["migrate"])
    app.cli.add_command(cast(Command, LocalProxy(lambda: bound().cli.commands["db"])), "db")


def make_schema() -> None:
    """Brings a SQLite database to the newest schema, whether it is new, the tutorial's or of an earlier release."""
    # However long another process takes for its migrations, this one can't serve before.
    with turn(patience=inf):
        with db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            behind = is_behind(connection)
        if behind:
            from flask_migrate import upgrade

            upgrade()
    if current_app.extensions["heroes"]["sqlite_directory"]:
        # No connection may cross a fork (https://sqlite.org/howtocorrupt.html, 2.6).
        db.engine.dispose()
        buggy = has_wal_reset_bug(sqlite3.sqlite_version_info)
        current_app.logger.log(
            logging.WARNING if buggy else logging.INFO,
            "SQLite %s%s",
            sqlite3.sqlite_version,
            ": has the WAL-reset bug, fixed in 3.51.3; let no other program write to the database" if buggy else "",
        )


def init_app(app: Flask) -> None:
    """Binds the database to the app. Raises ConfigError where its URL can't be used."""
    url, options = engine_options(
        str(app.config["SQLALCHEMY_DATABASE_URI"]), app.config["DATABASE_TIMEOUT"], app.config["GUNICORN_THREADS"]
    )
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    directory = os.path.dirname(url.database) if "pool_size" in options and url.database else None
    app.extensions["heroes"] = {"sqlite_directory": directory}
    db.init_app(app)
    bind_migrate(app)
    with app.app_context():
        if url.get_backend_name() != "sqlite":
            event.listen(db.engine, "handle_error", prepare_error)
            return
        event.listen(db.engine, "connect", prepare_connection)
        try:
            make_schema()
        except (OSError, DBAPIError) as error:
            raise ConfigError(f"DATABASE_URL: {getattr(error, 'orig', error)}") from error
