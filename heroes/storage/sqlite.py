"""Engine options and events for SQLite."""

import json
import os
import sqlite3
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from weakref import WeakValueDictionary, finalize

from sqlalchemy import URL, Connection, Engine, StaticPool, event, make_url
from sqlalchemy.exc import OperationalError

from heroes.config import ConfigError

REPLACED = "the database file was removed or replaced; put it back, or stop the service and restore a backup"
REMOVED = "the -wal or -shm file of the database was removed or replaced; restart the service"
# The first releases of two older branches without the WAL-reset bug (https://sqlite.org/wal.html#walresetbug).
FIXED = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}


def engine_options(text: str, timeout: int) -> tuple[URL, dict[str, Any], str | None]:
    """Return the URL, the engine options and the path of a sqlite:// URL; the path is None for a database in memory.

    A path is relative to the working directory, as in the tutorial. Raises ValueError, ArgumentError and ConfigError.
    """
    if sqlite3.sqlite_version_info < (3, 35):
        raise ConfigError("DATABASE_URL: Needs SQLite 3.35 or newer.")  # for RETURNING: every write would be a 503
    url = make_url(text)
    arguments = {"timeout": timeout, "check_same_thread": False}
    # Raises for a host, and for a value of the wrong type. SQLite itself takes other query keys, in a file: URI.
    _, taken = url.get_dialect()().create_connect_args(url)
    uri = taken.get("uri", False)
    if not uri and (unknown := url.query.keys() - taken.keys() - {"uri", "isolation_level"}):
        raise ValueError(f"unknown: {unknown}")
    name = url.database or ":memory:"
    if name == ":memory:" or (uri and (url.query.get("mode") == "memory" or ":memory:" in name)):
        # Not the URL as given: Flask-SQLAlchemy would make a file of file::memory:.
        return make_url("sqlite://"), {"connect_args": arguments, "poolclass": StaticPool}, None
    if uri and name.startswith("file:"):
        parts = urlsplit(name)
        if parts.netloc not in ("", "localhost"):
            raise ValueError("a file has no host")
        name = unquote(parts.path)
    path = os.path.abspath(name)
    # Not SQLite's default mode, which creates a new file if the database was removed.
    mode = "ro" if url.query.get("mode") == "ro" else "rw"
    url = url.set(database=f"file:{quote(path)}").update_query_dict({"mode": mode, "uri": "true"})
    # JSON has no NaN. PostgreSQL refuses it, too.
    return url, {"connect_args": arguments, "json_serializer": partial(json.dumps, allow_nan=False)}, path


def file_identity(path: str) -> tuple[int, int] | None:
    """Return the device and inode of a file, which change if another takes its place; None if it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def listen(engine: Engine, path: str | None) -> None:
    """Prepare each connection. Refuse it if the file is no longer the one that is at `path` now.

    SQLite would apply what is in the -wal file to another database, and damage it.
    """
    # SQLite puts the two other files beside the file that a symbolic link refers to. A reader may have none.
    real, writable = os.path.realpath(path or ""), engine.url.query.get("mode") == "rw"
    files = {path: REPLACED, f"{real}-wal": REMOVED, f"{real}-shm": REMOVED} if path and writable else {}
    identity = path and file_identity(path)
    if path and identity:
        # While it is open, no other file gets its inode. Closing an ordinary descriptor would drop SQLite's own locks.
        finalize(engine, os.close, os.open(path, getattr(os, "O_PATH", os.O_RDONLY)))
    records: WeakValueDictionary[int, Any] = WeakValueDictionary()

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        try:
            # FULL costs one fsync a commit; NORMAL would lose acknowledged writes in a power failure.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # A read opens the -wal file, which stays until the last connection is closed.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            # The pool does not close a connection whose "connect" event failed.
            connection.close()
            raise
        record.info["files"] = [(name, file_identity(name), message) for name, message in files.items()]
        records[id(record)] = record

    @event.listens_for(engine, "do_connect")
    def check_open_files(*_: object) -> None:
        # A new connection would create another -wal or -shm file beside the one that is in use, and two of them damage
        # the database (https://sqlite.org/howtocorrupt.html, 4). In a list: another thread may add its own meanwhile.
        for record in [reference() for reference in records.valuerefs()]:
            if record and record.dbapi_connection and (problem := find_problem(record.info["files"])):
                raise sqlite3.OperationalError(problem)

    @event.listens_for(engine, "do_connect")
    @event.listens_for(engine, "checkout")
    def check(*_: object) -> None:
        if path and file_identity(path) != identity:
            raise sqlite3.OperationalError(REPLACED)


def find_problem(files: list[tuple[str, Any, str]]) -> str | None:
    """Return the message of the first file that was removed or replaced. files: names, identities and messages."""
    return next((message for name, identity, message in files if file_identity(name) != identity), None)


def check_files(connection: Connection) -> None:
    """Raise OperationalError if a file of the database was removed or replaced: a write would be lost."""
    if problem := find_problem(connection.info.get("files", [])):
        raise OperationalError("BEGIN", None, sqlite3.OperationalError(problem))


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Return whether a release of SQLite can damage a database in WAL mode if two connections write at once."""
    return version < FIXED.get(version[:2], (3, 51, 3))
