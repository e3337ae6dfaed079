"""A database error is a 503 with Retry-After, logged once; the service recovers with the database."""

import errno
import fcntl
import logging
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import NullPool, text

from heroes import create_app
from heroes.extensions import db
from heroes.storage.locks import in_background
from heroes.storage.postgresql import Connector
from tests.constants import HERO, Query, postgres_only, sqlite_only
from tests.databases import migrated, new_database, pool
from tests.servers import wait_until

SECRET = HERO | {"secret_name": "sentinel"}
WRITES = [("POST", "/heroes/", SECRET), ("PATCH", "/heroes/1", {"name": "Spider-Boy"}), ("DELETE", "/heroes/1", None)]
Operation = tuple[str, str, Any]
writes = pytest.mark.parametrize("operation", WRITES, ids=["create", "patch", "delete"])


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service with a short timeout and one connection, and a hero in its table."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "DATABASE_TIMEOUT": 1, "GUNICORN_THREADS": 1})
    app.test_client().post("/heroes/", json=SECRET)
    yield app
    dispose(app)


@pytest.fixture
def unchanged(client: FlaskClient, query: Query) -> Any:
    """Check, after the fault, that nothing of the rejected requests is stored and that the service works."""

    def check() -> None:
        assert query("SELECT id, name, age, secret_name FROM hero") == [(1, "Deadpond", None, "sentinel")]
        assert client.get("/heroes/1").status_code == 200
        assert client.post("/heroes/", json=SECRET).status_code == 200
        assert client.patch("/heroes/1", json={"age": 48}).get_json()["age"] == 48
        assert client.delete("/heroes/1").status_code == 200

    return check


def dispose(app: Flask) -> None:
    """Close the connections of the app's pool."""
    with app.app_context():
        db.engine.dispose()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def refused(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> Any:
    """Send a request and check that the response is a 503 in the envelope, logged once and without the secret."""

    def send(method: str, path: str, body: Any = None, detail: str = "Service Unavailable") -> None:
        caplog.clear()
        response = client.open(path, method=method, json=body)
        assert (response.status_code, response.json) == (503, {"detail": detail})
        assert int(response.headers["Retry-After"]) > 0
        assert len(errors(caplog)) == 1
        assert "sentinel" not in caplog.text

    return send


@sqlite_only
@writes
def test_lock_held_beyond_the_timeout_is_503(
    database_url: str,
    refused: Callable[..., None],
    unchanged: Callable[[], None],
    client: FlaskClient,
    operation: Operation,
) -> None:
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        refused(*operation)
        # Readers do not wait for a writer.
        assert client.get("/heroes/1").status_code == 200
    unchanged()


@sqlite_only
def test_waits_for_a_lock_are_bounded_for_many_writers(database_url: str, unchanged: Callable[[], None]) -> None:
    """If many writers wait for another program's lock, the last one is rejected after at most two timeouts."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "DATABASE_TIMEOUT": 1, "GUNICORN_THREADS": 6})
    answers = []

    def create() -> None:
        started = time.monotonic()
        answers.append((app.test_client().post("/heroes/", json=SECRET).status_code, time.monotonic() - started))

    threads = [threading.Thread(target=create) for _ in range(6)]
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [status for status, _ in answers] == [503] * 6
    assert max(seconds for _, seconds in answers) < 2.5
    unchanged()
    dispose(app)


@sqlite_only
def test_wait_for_other_processes_is_bounded_by_the_timeout(
    database_url: str,
    client: FlaskClient,
    refused: Any,
    unchanged: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(flush=True); input()"
    folder = os.path.dirname(database_url.removeprefix("sqlite:///"))
    with subprocess.Popen(
        [sys.executable, "-c", hold, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline()
        started = time.monotonic()
        refused("POST", "/heroes/", SECRET)
        assert time.monotonic() - started < 3
        assert errors(caplog) == ["database unavailable: timeout while waiting for writers of other processes"]
        assert client.get("/heroes/1").status_code == 200
        # However many requests have stopped waiting, one thread and one descriptor wait.
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            assert client.post("/heroes/", json=SECRET).status_code == 503
        assert threading.active_count() <= threads
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        other.communicate("\n")
    unchanged()


@sqlite_only
def test_write_without_a_free_descriptor_is_503(client: FlaskClient, unchanged: Callable[[], None]) -> None:
    assert client.get("/heroes/").status_code == 200
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        status = client.post("/heroes/", json=SECRET).status_code
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert status == 503
    unchanged()


@sqlite_only
def test_removed_wal_file_behind_a_symbolic_link_is_503(database_url: str, tmp_path: Path) -> None:
    link = tmp_path / "linked" / "link.db"
    link.parent.mkdir()
    link.symlink_to(database_url.removeprefix("sqlite:///"))
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{link}"})
    client = app.test_client()
    assert client.post("/heroes/", json=SECRET).status_code == 200
    Path(f"{os.path.realpath(link)}-wal").unlink()

    assert client.post("/heroes/", json=SECRET).status_code == 503
    dispose(app)


@sqlite_only
def test_text_that_is_not_utf_8_is_not_logged(
    client: FlaskClient, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    query("INSERT INTO hero (name, secret_name) VALUES (CAST(x'53454E54494E454CFF' AS TEXT), 's')")

    assert client.get("/heroes/").status_code == 503
    assert "Could not decode" in caplog.text
    assert "SENTINEL" not in caplog.text


@sqlite_only
@pytest.mark.parametrize("operation", WRITES[:2], ids=["create", "patch"])
def test_full_disk_is_503(
    app: Flask, refused: Callable[..., None], unchanged: Callable[[], None], operation: Operation
) -> None:
    with app.app_context(), db.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    # Longer than the free space of the existing pages.
    long = {"name": "x" * 500, "secret_name": "sentinel" * 60}
    stored = 0
    client = app.test_client()
    while client.post("/heroes/", json=long).status_code == 200:
        stored += 1
        assert stored < 100
    refused("POST", "/heroes/", long)
    with app.app_context(), db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
        assert connection.exec_driver_sql("SELECT count(*) FROM hero").scalar() == stored + 1
        connection.exec_driver_sql("DELETE FROM hero WHERE id > 1")
        connection.commit()
    unchanged()


@sqlite_only
@writes
def test_read_only_file_is_503(
    app: Flask, refused: Callable[..., None], unchanged: Callable[[], None], operation: Operation
) -> None:
    with app.app_context(), db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    refused(*operation)
    with app.app_context(), db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = OFF")
    unchanged()


@sqlite_only
def test_damaged_file_is_503(database_url: str, refused: Callable[..., None], client: FlaskClient) -> None:
    path = database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    dispose(client.application)
    with open(path, "r+b") as file:
        file.write(b"x" * 200)

    refused("GET", "/heroes/1")
    refused("POST", "/heroes/", SECRET)


@sqlite_only
@pytest.mark.parametrize("operation", WRITES[1:], ids=["patch", "delete"])
def test_damaged_index_is_503(database_url: str, refused: Callable[..., None], operation: Operation) -> None:
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        connection.executescript("""
            CREATE INDEX empty ON hero (name) WHERE name = '';
            PRAGMA writable_schema = ON;
            UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'empty')
            WHERE name = 'ix_hero_name';
            DELETE FROM sqlite_master WHERE name = 'empty';
        """)

    refused(*operation)


@pytest.mark.parametrize("operation", [*WRITES, ("GET", "/heroes/", None)])
def test_exhausted_pool_is_503(
    app: Flask, refused: Callable[..., None], unchanged: Callable[[], None], operation: Operation
) -> None:
    with app.app_context(), db.engine.connect():
        refused(*operation)
    unchanged()


@postgres_only
@writes
def test_locked_table_is_503(
    database_url: str,
    refused: Callable[..., None],
    client: FlaskClient,
    query: Query,
    operation: Operation,
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE hero")
        refused(*operation)
        other.rollback()
    assert query("SELECT id, name FROM hero") == [(1, "Deadpond")]
    assert client.delete("/heroes/1").status_code == 200


def backends(query: Query) -> Any:
    """End the service's connections as a server that shuts down does, and return how many there were."""
    return len(
        query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'heroes' AND datname = current_database()"
        )
    )


def waiting(query: Query) -> bool:
    """Return whether the service waits for a lock."""
    return bool(query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'heroes' AND wait_event_type = 'Lock'"))


@postgres_only
def test_connection_lost_while_idle_is_replaced(
    client: FlaskClient, query: Query, unchanged: Callable[[], None]
) -> None:
    client.get("/heroes/1")

    assert backends(query) >= 1
    unchanged()


@postgres_only
@writes
def test_connection_lost_during_a_statement_is_503(
    database_url: str,
    refused: Callable[..., None],
    query: Query,
    unchanged: Callable[[], None],
    operation: Operation,
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE hero")
        ending = threading.Thread(target=lambda: wait_until(lambda: waiting(query)) and backends(query))
        ending.start()
        refused(*operation)
        ending.join()
    unchanged()


@postgres_only
@writes
def test_read_only_database_is_503(
    database_url: str,
    postgres: str,
    refused: Callable[..., None],
    query: Query,
    unchanged: Callable[[], None],
    operation: Operation,
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    try:
        query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        backends(query)
        refused(*operation, "Database is read-only")
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    # Connections that were opened while the database was read-only are closed: this uses a new one.
    unchanged()


@postgres_only
@writes
def test_missing_privilege_is_503(
    database_url: str, query: Query, operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"reader_{uuid.uuid4().hex}"
    query(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    separator = "&" if "?" in database_url else "?"
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{database_url}{separator}user={role}"})
    method, path, body = operation
    try:
        assert app.test_client().get("/heroes/").status_code == 200
        response = app.test_client().open(path, method=method, json=body)
        assert (response.status_code, response.json) == (503, {"detail": "Service Unavailable"})
        assert "permission denied for table hero" in caplog.text
    finally:
        dispose(app)
        query(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("encoding, status", [("LATIN1", 400), ("SQL_ASCII", 200)])
def test_character_that_the_database_lacks_is_400(
    postgres: str, encoding: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = new_database(postgres, f"ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    migrated(url)
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    client = app.test_client()
    other = client.post("/heroes/", json=HERO | {"name": "\N{SUPERHERO}"})

    assert client.post("/heroes/", json=HERO | {"name": "\xe9"}).get_json()["name"] == "\xe9"
    assert other.status_code == client.get("/heroes/?name=\N{SUPERHERO}").status_code == status
    if status == 400:
        assert other.json == {"detail": "The database can't store one of the values"}
    assert errors(caplog) == []
    dispose(app)


def test_an_etag_that_the_database_can_not_hold_matches_nothing(postgres: str) -> None:
    url = new_database(postgres, "ENCODING 'LATIN2' TEMPLATE template0 LOCALE 'C'")
    migrated(url)
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    client = app.test_client()
    client.post("/heroes/", json=HERO)

    for header, status in (("If-Match", 412), ("If-None-Match", 200)):
        assert client.patch("/heroes/1", json={"age": 1}, headers={header: '"\xe3"'}).status_code == status
    dispose(app)


@postgres_only
@pytest.mark.parametrize("last", [1, 2**63 - 1], ids=["behind the ids", "at its end"])
def test_sequence_without_a_free_id_is_503(
    refused: Callable[..., None], client: FlaskClient, query: Query, caplog: pytest.LogCaptureFixture, last: int
) -> None:
    client.post("/heroes/", json=SECRET)
    query(f"SELECT setval('hero_id_seq', {last})")
    refused("POST", "/heroes/", SECRET)
    assert "hero_pkey" in caplog.text or "hero_id_seq" in caplog.text
    query("SELECT setval('hero_id_seq', max(id)) FROM hero")

    assert client.post("/heroes/", json=SECRET).get_json()["id"] == 3


def test_text_of_a_sql_ascii_database_that_is_not_utf_8_is_503(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    url = new_database(postgres, "ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    migrated(url)
    with psycopg.connect(url, client_encoding="SQL_ASCII") as connection:
        connection.execute(b"INSERT INTO hero (name, secret_name) VALUES ('\xe9', 's')")
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})

    assert app.test_client().get("/heroes/").status_code == 503
    [message] = errors(caplog)
    assert "22021" in message
    assert "0xe9" not in message
    dispose(app)


def test_unreachable_server_is_503(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "postgresql://user:sentinel@127.0.0.1:1/heroes"})

    response = app.test_client().post("/heroes/", json=SECRET)

    assert (response.status_code, response.json) == (503, {"detail": "Service Unavailable"})
    assert len(errors(caplog)) == 1
    assert "sentinel" not in caplog.text


@postgres_only
@pytest.mark.parametrize("operation", [*WRITES, ("GET", "/heroes/", None)])
def test_missing_schema_is_503(empty_database_url: str, caplog: pytest.LogCaptureFixture, operation: Operation) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})

    method, path, body = operation
    response = app.test_client().open(path, method=method, json=body)
    dispose(app)

    assert (response.status_code, response.json) == (503, {"detail": "Service Unavailable"})
    assert len(errors(caplog)) == 1


def test_constraint_violation_does_not_reveal_the_row(
    app: Flask, client: FlaskClient, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """A later release's schema may have constraints that this one does not know."""
    query("CREATE UNIQUE INDEX only_one ON hero (secret_name)")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    try:
        response = client.post("/heroes/", json=SECRET)
    finally:
        query("DROP INDEX only_one")

    assert (response.status_code, response.json) == (409, {"detail": "Already exists"})
    assert "sentinel" not in caplog.text + response.text


@sqlite_only
@pytest.mark.parametrize("with_its_log", [False, True])
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
def test_removed_database_file_is_503_until_it_is_back(
    database_url: str, client: FlaskClient, query: Query, tmp_path: Path, with_its_log: bool, key: dict[str, str]
) -> None:
    path = Path(database_url.removeprefix("sqlite:///"))
    files = [path, *(path.with_name(f"{path.name}-{name}") for name in ("wal", "shm") if with_its_log)]
    away = tmp_path / "away"
    away.mkdir()
    for file in files:
        file.rename(away / file.name)

    for method, target_path, body in [*WRITES, ("GET", "/heroes/1", None), ("GET", "/heroes/", None)]:
        response = client.open(target_path, method=method, json=body, headers=key if method == "POST" else {})
        assert (response.status_code, response.json) == (503, {"detail": "Service Unavailable"})
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    assert not path.exists()

    for file in files:
        (away / file.name).rename(file)
    assert client.get("/health/ready").status_code == 200
    assert client.post("/heroes/", json=SECRET, headers=key).status_code == 200
    assert query("SELECT count(*) FROM hero") == [(2,)]


@sqlite_only
@pytest.mark.parametrize("same_inode", [False, True])
def test_replaced_database_file_is_503_until_it_is_restored(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, same_inode: bool
) -> None:
    """SQLite would apply the old file's log to the new one."""
    path, other = Path(database_url.removeprefix("sqlite:///")), tmp_path / "other.db"
    app, same_service = (create_app({"SQLALCHEMY_DATABASE_URI": database_url}) for _ in range(2))
    client = app.test_client()
    assert same_service.test_client().get("/heroes/").status_code == 200
    for _ in range(100):
        client.post("/heroes/", json=SECRET)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(other)) as target:
        source.backup(target)
        target.executescript("UPDATE hero SET name = 'Other'; DROP INDEX ix_hero_age; VACUUM")
    client.patch("/heroes/1", json={"name": "Spider-Boy"})
    if same_inode:  # ext4 gives it to the next file, once nobody has the removed one open
        path.unlink()
        assert [each.test_client().get("/heroes/").status_code for each in (app, same_service)] == [503, 503]
        path.write_bytes(other.read_bytes())
    else:
        os.replace(other, path)

    assert [client.get("/heroes/1").status_code, client.post("/heroes/", json=SECRET).status_code] == [503, 503]
    # A restart would damage the new file.
    assert "restore a backup" in caplog.text
    assert "restart" not in caplog.text

    for each in (app, same_service):
        dispose(each)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    restarted = create_app({"SQLALCHEMY_DATABASE_URI": database_url})
    assert restarted.test_client().get("/heroes/100").get_json()["name"] == "Other"
    dispose(restarted)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@sqlite_only
@pytest.mark.parametrize("content", [b"", b"This is no database. " * 100])
def test_database_file_replaced_by_another_format_is_503(
    database_url: str, client: FlaskClient, tmp_path: Path, content: bytes
) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(content)
    os.replace(other, database_url.removeprefix("sqlite:///"))

    assert client.get("/heroes/1").status_code == 503
    assert client.post("/heroes/", json=SECRET).status_code == 503
    assert client.get("/health/ready").status_code == 503


@sqlite_only
def test_moved_database_folder_is_503_until_it_is_back(database_url: str, client: FlaskClient) -> None:
    folder = Path(database_url.removeprefix("sqlite:///")).parent
    os.rename(folder, f"{folder}-moved")
    try:
        assert client.post("/heroes/", json=SECRET).status_code == 503
        assert client.get("/health/ready").status_code == 503
    finally:
        os.rename(f"{folder}-moved", folder)
    assert client.post("/heroes/", json=SECRET).status_code == 200


@sqlite_only
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
def test_file_removed_while_a_writer_waits_is_503(
    app: Flask, database_url: str, tmp_path: Path, key: dict[str, str]
) -> None:
    path = Path(database_url.removeprefix("sqlite:///"))
    statuses: list[int] = []

    def create() -> None:
        statuses.append(app.test_client().post("/heroes/", json=SECRET, headers=key).status_code)

    thread = threading.Thread(target=create)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    thread.start()
    with app.app_context():
        wait_until(lambda: pool().checkedout() == 1)
    path.unlink()
    os.close(descriptor)
    thread.join()

    assert statuses == [503]


@sqlite_only
def test_writer_without_a_thread_to_wait_is_503(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client.post("/heroes/", json=SECRET)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        before = len(os.listdir("/proc/self/fd"))
        statuses = {client.post("/heroes/", json=SECRET).status_code for _ in range(3)}
        assert len(os.listdir("/proc/self/fd")) == before
    os.close(descriptor)

    assert statuses == {503}
    assert client.post("/heroes/", json=SECRET).status_code == 200


@sqlite_only
@pytest.mark.parametrize("busy", [False, True])
def test_file_system_that_refuses_locks_is_503(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    lock = fcntl.flock

    def refuse(descriptor: int, operation: int) -> None:
        if busy and operation & fcntl.LOCK_NB:
            lock(descriptor, operation)
        raise OSError(errno.ENOLCK, "No locks available")

    descriptor = os.open(tmp_path, os.O_RDONLY)
    lock(descriptor, fcntl.LOCK_EX)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        assert client.post("/heroes/", json=SECRET).status_code == 503
    os.close(descriptor)

    assert client.post("/heroes/", json=SECRET).status_code == 200


@postgres_only
def test_isolation_level_of_the_database_does_not_fail_concurrent_writes(app: Flask, query: Query) -> None:
    name = str(query("SELECT current_database()")[0][0])
    query(f'ALTER DATABASE "{name}" SET default_transaction_isolation = "serializable"')
    try:
        with app.app_context():
            assert db.session.scalar(text("SHOW transaction_isolation")) == "read committed"
    finally:
        query(f'ALTER DATABASE "{name}" RESET default_transaction_isolation')


def test_unresponsive_host_is_503_after_the_timeout() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        app = create_app({"SQLALCHEMY_DATABASE_URI": f"postgresql://a@127.0.0.1:{port}/a?connect_timeout=2"})
        client = app.test_client()
        for _ in range(4):
            started = time.monotonic()
            assert client.get("/heroes/").status_code == 503
            assert time.monotonic() - started < 4
    dispose(app)


def test_error_of_an_earlier_attempt_to_connect_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    threads = threading.active_count()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        app = create_app({"SQLALCHEMY_DATABASE_URI": f"postgresql://a@127.0.0.1:{port}/a?connect_timeout=2"})
        # The last ones give up an attempt that is still waiting.
        assert [app.test_client().get("/heroes/").status_code for _ in range(3)] == [503, 503, 503]
    wait_until(lambda: threading.active_count() <= threads)
    caplog.clear()

    assert app.test_client().get("/heroes/").status_code == 503
    assert "refused" in caplog.text
    dispose(app)


@postgres_only
@pytest.mark.parametrize("dead", [False, True])
def test_connection_of_an_attempt_that_was_given_up_is_used_if_it_is_alive(
    app: Flask, database_url: str, query: Query, dead: bool
) -> None:
    with app.app_context():
        dialect = db.engine.dialect
    connector = Connector()
    connector.attempt = in_background(lambda: dialect.connect(database_url))
    late = connector.attempt.result()
    if dead:
        query(f"SELECT pg_terminate_backend({late.info.backend_pid})")

    with closing(connector(dialect, None, [database_url], {})) as connection:
        assert (connection is late, connection.execute("SELECT 1").fetchone()) == (not dead, (1,))
    late.close()


@postgres_only
def test_connection_without_a_thread_is_503(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with app.app_context(), monkeypatch.context() as patched:
        db.engine.dispose()
        patched.setattr(threading.Thread, "start", refuse)
        assert [app.test_client().get("/heroes/").status_code for _ in range(2)] == [503, 503]

    assert app.test_client().get("/heroes/").status_code == 200


@postgres_only
def test_request_waits_for_a_server_that_is_slow_to_connect(database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}options=-c%20post_auth_delay%3D1"
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "SQLALCHEMY_ENGINE_OPTIONS": {"poolclass": NullPool}})

    def read(_: object = None) -> int:
        return app.test_client().get("/heroes/").status_code

    assert read() == 200
    # Connections are made one after another, but the waits of several threads do not add up.
    started = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(read, range(6))) <= {200, 503}
    assert time.monotonic() - started < 3.8
    wait_until(lambda: read() == 200)


@sqlite_only
@pytest.mark.parametrize("removed", [["-wal", "-shm"], ["-wal"], ["-shm"]])
def test_nothing_is_acknowledged_after_a_file_of_the_log_was_removed(
    app: Flask, database_url: str, client: FlaskClient, caplog: pytest.LogCaptureFixture, removed: list[str]
) -> None:
    path = database_url.removeprefix("sqlite:///")
    assert client.post("/heroes/", json=SECRET).status_code == 200
    for suffix in removed:
        Path(f"{path}{suffix}").unlink()

    assert client.post("/heroes/", json=SECRET).status_code == 503
    assert client.post("/heroes/", json=SECRET, headers={"Idempotency-Key": "k"}).status_code == 503
    assert client.get("/health/ready").status_code == 503
    assert "removed or replaced; restart the service" in caplog.text

    # What was acknowledged before is brought into the file when the service stops.
    dispose(app)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM hero").fetchone() == (2,)


@sqlite_only
@pytest.mark.parametrize("removed", [["-wal", "-shm"], ["-wal"], ["-shm"]])
def test_no_connection_is_opened_after_a_file_of_the_log_was_removed(database_url: str, removed: list[str]) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "GUNICORN_THREADS": 2})
    client = app.test_client()
    files = [Path(f"{database_url.removeprefix('sqlite:///')}{suffix}") for suffix in removed]
    assert client.post("/heroes/", json=SECRET).status_code == 200
    for file in files:
        file.unlink()

    with app.app_context(), db.engine.connect():  # the only connection that the pool has
        assert client.post("/heroes/", json=SECRET).status_code == 503
        assert client.get("/heroes/").status_code == 503
        assert not any(file.exists() for file in files)

    # Without any connection of the process, SQLite creates them anew.
    dispose(app)
    assert client.post("/heroes/", json=SECRET).status_code == 200
    dispose(app)
