"""Bind the database that DATABASE_URL names to the app."""

import logging
import os
import sqlite3
import threading
from contextlib import closing, nullcontext
from functools import partial
from typing import Any
from wsgiref.types import WSGIApplication

from click import get_current_context
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from heroes.config import ConfigError
from heroes.extensions import db, migrate
from heroes.storage import postgresql, sqlite
from heroes.storage.locks import hold_writer_lock
from heroes.storage.schema import is_behind

logger = logging.getLogger("heroes.storage")


def init_app(app: Flask) -> None:
    """Bind the database to the app. Raises ConfigError if its URL can't be used."""
    uri = str(app.config["SQLALCHEMY_DATABASE_URI"]).strip()
    is_sqlite = uri.startswith("sqlite")
    timeout = app.config["DATABASE_TIMEOUT"]
    path, pgbouncer = None, False
    if None in (app.config.get("SQLALCHEMY_BINDS") or {}):
        raise ConfigError("SQLALCHEMY_BINDS: For None use SQLALCHEMY_DATABASE_URI and SQLALCHEMY_ENGINE_OPTIONS.")
    try:
        if is_sqlite:
            url, options, path = sqlite.engine_options(uri, timeout)
        else:
            url, options, pgbouncer = postgresql.engine_options(uri, timeout)
    except ConfigError:
        raise
    except ImportError:
        raise ConfigError("DATABASE_URL: PostgreSQL needs pip install '.[postgres]'") from None
    except Exception:
        # The driver's own message would show the password.
        raise ConfigError("DATABASE_URL: Not a valid URL.") from None
    given: dict[str, Any] = app.config.get("SQLALCHEMY_ENGINE_OPTIONS") or {}
    arguments = options["connect_args"] | given.get("connect_args", {})
    # Parameters in error messages would show secrets.
    options = {"hide_parameters": True} | options | given | {"connect_args": arguments}
    if "poolclass" not in options:
        # A connection for each thread, so that none waits for another's. Not every class of pool takes these.
        options = {"pool_size": app.config["GUNICORN_THREADS"], "max_overflow": 0, "pool_timeout": timeout} | options
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=options)
    # Where the database's -wal file is, if the path is a symbolic link.
    directory = os.path.dirname(os.path.realpath(path)) if path else ""
    # PostgreSQL needs no lock of ours, and a database in memory serves one request at a time.
    lock = partial(hold_writer_lock, directory, threading.Lock())
    app.extensions["heroes.writer_lock"] = lock if path else lambda timeout: nullcontext()
    db.init_app(app)
    # Other extensions may read it.
    app.config["SQLALCHEMY_DATABASE_URI"] = uri
    migrate.init_app(app)
    with app.app_context():
        if not is_sqlite:
            if pgbouncer:
                # Before listen(): an attempt to connect in the background would not survive a fork.
                check_role(db.engine)
            postgresql.listen(db.engine, arguments.get("target_session_attrs"))
        else:
            if path is None:
                app.wsgi_app = partial(one_at_a_time, threading.RLock(), app.wsgi_app)  # type: ignore[method-assign]
            try:
                # A day, because this process can serve only after another one has finished migrating.
                with app.extensions["heroes.writer_lock"](24 * 3600):
                    if path and url.query["mode"] != "ro" and os.access(directory, os.W_OK):
                        prepare_file(path)
                    sqlite.listen(db.engine, path)
                    upgrade_if_behind()
            except (sqlite3.Error, DBAPIError) as error:
                raise ConfigError(f"DATABASE_URL: {getattr(error, 'orig', error)}") from error
        if path or pgbouncer:
            # No connection may cross a fork (https://sqlite.org/howtocorrupt.html, 2.6).
            db.engine.dispose()


def prepare_file(path: str) -> None:
    """Create the SQLite file if it is missing, and put it into WAL mode, which it stays in.

    Raises ConfigError if only its -wal file is there: SQLite would delete it, with the commits that are nowhere else.
    """
    if sqlite.file_identity(f"{os.path.realpath(path)}-wal") and not sqlite.file_identity(path):
        raise ConfigError("DATABASE_URL: The file is missing, but not its -wal file: put it back, or delete that, too.")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    buggy = sqlite.has_wal_reset_bug(sqlite3.sqlite_version_info)
    hint = ": has the WAL-reset bug, fixed in 3.51.3; let no other program write to the database" if buggy else ""
    logger.log(logging.WARNING if buggy else logging.INFO, "SQLite %s%s", sqlite3.sqlite_version, hint)


def upgrade_if_behind() -> None:
    """Migrate a SQLite database, whether it is new, the tutorial's or of an earlier release.

    Raises ConfigError if that fails; a command of `flask` logs it, and goes on.
    """
    with db.engine.connect() as connection:
        if not is_behind(connection):
            return
    try:
        return upgrade(revision="heads")  # several, until branches are merged
    except SystemExit as stop:
        if not stop.code:
            raise  # gunicorn is stopped
        # Flask-Migrate exits with 1 if a migration is unknown.
        problem: object = "Has migrations of another program."
    except (sqlite3.Error, DBAPIError) as error:
        problem = getattr(error, "orig", error)
    if not get_current_context(silent=True):
        raise ConfigError(f"DATABASE_URL: {problem}")
    # The command may be what is needed now, such as `db stamp` or `heroes backup`.
    logger.error("not migrated: %s", problem)


def check_role(engine: Engine) -> None:
    """Log a warning for each timeout of SERVER_OPTIONS that the role lacks; PgBouncer lets no connection set it."""
    try:
        with engine.connect() as connection:
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                if connection.execute(text(f"SHOW {name}")).scalar() == "0":
                    logger.warning("PgBouncer: %s is 0; set it with ALTER ROLE … SET %s", name, name)
    except DBAPIError as error:
        logger.warning("PgBouncer: timeouts not checked, %s", str(error.orig).partition("\n")[0])


def one_at_a_time(lock: threading.RLock, wsgi_app: WSGIApplication, *arguments: Any) -> Any:
    """Serve one request at a time: a database in memory has only one connection."""
    with lock:
        return wsgi_app(*arguments)
