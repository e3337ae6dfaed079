"""An acknowledged write is on disk; the database is chosen by DATABASE_URL alone."""

import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import click
import psutil
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import inspect, select, text

from heroes import create_app
from heroes.config import ConfigError
from heroes.extensions import db
from heroes.models import Hero
from heroes.storage import postgresql
from heroes.storage.columns import random_version
from heroes.storage.locks import hold_writer_lock
from heroes.storage.sqlite import has_wal_reset_bug
from tests.commands import FLASK
from tests.constants import HERO, ROOT, Query, postgres_only, public, sqlite_only
from tests.databases import locked, migrated, pool
from tests.servers import measured, wait_until

BIG = 2**63 - 1


WRITES = """
import os
import sys

from heroes import create_app

client = create_app({"SQLALCHEMY_DATABASE_URI": sys.argv[1]}).test_client()
os.write(1, b"started")
for method, path, body in [
    ("POST", "/heroes/", {"name": "Deadpond", "secret_name": "Dive Wilson"}),
    *[("PATCH", "/heroes/1", {"age": age}) for age in range(10)],
    ("DELETE", "/heroes/1", None),
]:
    assert client.open(path, method=method, json=body).status_code == 200
    os.write(1, b"answered")
"""


def test_versions_do_not_repeat() -> None:
    assert len({random_version() for _ in range(10_000)}) == 10_000


needs_strace = pytest.mark.skipif(
    not shutil.which("strace") and "CI" not in os.environ, reason="needs strace (a Debian package)"
)


@needs_strace
def test_every_acknowledged_write_is_an_fsync(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fsync,fdatasync,write", "-o", str(trace), sys.executable, "-c", WRITES]
    subprocess.run([*command, f"sqlite:///{tmp_path / 'database.db'}"], cwd=ROOT, check=True, timeout=60)

    _, calls = trace.read_text().split('write(1, "started"')
    *before_answers, _ = calls.split('write(1, "answered"')
    syncs = [len(re.findall(r"\b(?:fsync|fdatasync)\(", before)) for before in before_answers]
    assert len(syncs) == 12
    assert min(syncs) >= 1


@needs_strace
def test_a_backup_and_its_name_are_on_disk_at_the_end(sqlite_url: str, tmp_path: Path) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "backups"
    folder.mkdir()
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename", "-o", str(trace), *FLASK, "heroes", "backup"]
    environment = os.environ | {"DATABASE_URL": sqlite_url}
    subprocess.run([*command, str(folder / "a.db")], cwd=ROOT, env=environment, check=True, timeout=60)

    calls = re.findall(rf"(fsync|rename)\((?:\d+<|\")({re.escape(str(folder))}[^>\"]*)", trace.read_text())
    assert [name for name, _ in calls[-3:]] == ["fsync", "rename", "fsync"]
    assert calls[-1][1] == str(folder)


def test_backup_needs_no_right_to_read_the_folder(sqlite_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "write-only"
    folder.mkdir(mode=0o300)
    rights = "-dac_override,-dac_read_search"  # with them, root may read it
    without = ["setpriv", "--bounding-set", rights, "--inh-caps", rights] if os.getuid() == 0 else []
    environment = os.environ | {"DATABASE_URL": sqlite_url}
    command = [*without, *FLASK, "heroes", "backup", str(folder / "a.db")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)

    assert (folder / "a.db").read_bytes().startswith(b"SQLite format 3")


@sqlite_only
def test_each_pooled_connection_is_durable(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as one, db.engine.connect() as another:
        for connection in (one, another):
            names = ("journal_mode", "synchronous", "foreign_keys")
            assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names] == ["wal", 2, 1]


@postgres_only
def test_postgres_commits_before_it_answers(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("fsync", "synchronous_commit")]

    assert settings == ["on", "on"]


def test_ages_and_ids_are_64_bit_integers(client: FlaskClient, query: Query) -> None:
    query(f"INSERT INTO hero (id, name, age, secret_name) VALUES ({BIG}, 'a', {-BIG}, 'b')")

    assert client.get(f"/heroes/{BIG}").json == public(name="a", age=-BIG, id=BIG)
    assert client.patch(f"/heroes/{BIG}", json={"age": BIG}).get_json()["age"] == BIG


@postgres_only
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_url_schemes_of_platforms_are_accepted(database_url: str, scheme: str) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{scheme}://{database_url.split('://', 1)[1]}"})

    assert app.test_client().post("/heroes/", json=HERO).get_json()["name"] == "Deadpond"
    with app.app_context():
        db.engine.dispose()


def test_of_several_hosts_the_primary_is_used() -> None:
    given = "postgres://u:p@one:5432,two:5433/heroes?sslmode=require"
    url, options, _ = postgresql.engine_options(given, 7)
    arguments = options["connect_args"]

    assert str(url) == "postgresql+psycopg://"
    assert (arguments["host"], arguments["port"], arguments["sslmode"]) == ("one,two", "5432,5433", "require")
    assert arguments["target_session_attrs"] == "read-write"
    assert options["pool_pre_ping"] is True


def test_parameters_of_the_url_take_precedence() -> None:
    given = "postgres://a,b/heroes?target_session_attrs=any&connect_timeout=2"
    _, options, _ = postgresql.engine_options(given, 5)

    assert options["connect_args"]["target_session_attrs"] == "any"
    assert options["connect_args"]["connect_timeout"] == "2"


@postgres_only
def test_given_options_are_added_to_the_timeouts(database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    options = "-c%20work_mem%3D8MB%20-c%20lock_timeout%3D3s"
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{database_url}{separator}options={options}", "DATABASE_TIMEOUT": 7})
    names = ("work_mem", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    with app.app_context():
        with db.engine.connect() as connection:
            settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        db.engine.dispose()

    assert settings == ["8MB", "3s", "7s", "7s"]


@pytest.mark.parametrize("query", ["", "?pgbouncer=true", "?pgbouncer=false", "?prepare_threshold=0"])
def test_statements_are_not_prepared_on_the_server(query: str) -> None:
    _, options, _ = postgresql.engine_options(f"postgres://host/heroes{query}", 5)

    assert options["connect_args"]["prepare_threshold"] is None


@postgres_only
@pytest.mark.parametrize(("query", "prepared"), [("", False), ("prepare_threshold=5", True)])
def test_prepared_statements_of_a_connection(database_url: str, query: str, prepared: bool) -> None:
    url = f"{database_url}{'&' if '?' in database_url else '?'}{query}"
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "GUNICORN_THREADS": 1})
    client = app.test_client()

    assert client.post("/heroes/", json=HERO).status_code == 200
    # psycopg drops what it prepared at a ROLLBACK, such as that of a readiness probe.
    for path in ("/health/ready", *("/heroes/1", "/heroes/") * 10):
        assert client.get(path).status_code == 200
    with app.app_context():
        statements = db.session.execute(text("SELECT name FROM pg_prepared_statements")).all()
        db.session.remove()
        db.engine.dispose()

    assert bool(statements) is prepared


@postgres_only
def test_prepared_statements_are_dropped_after_a_new_type_of_a_column(empty_database_url: str) -> None:
    migrated(empty_database_url)
    url = f"{empty_database_url}{'&' if '?' in empty_database_url else '?'}prepare_threshold=1"
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "GUNICORN_THREADS": 1})
    client = app.test_client()
    for _ in range(3):
        client.post("/heroes/", json=HERO)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("ALTER TABLE hero ALTER age TYPE int")
    statuses = [client.post("/heroes/", json=HERO).status_code for _ in range(2)]
    with app.app_context():
        db.engine.dispose()

    assert statuses == [503, 200]


@postgres_only
def test_reads_survive_a_new_type_of_a_column(empty_database_url: str) -> None:
    migrated(empty_database_url)
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url, "GUNICORN_THREADS": 1})
    client = app.test_client()
    statuses = [client.post("/heroes/", json=HERO).status_code]

    for new in ("text", 'varchar COLLATE "C"', "text"):
        for _ in range(7):
            statuses += [client.get(path).status_code for path in ("/heroes/1", "/heroes/", "/heroes/?name=Deadpond")]
        with psycopg.connect(empty_database_url) as connection:
            connection.execute(f"ALTER TABLE hero ALTER name TYPE {new}")
    statuses += [client.get("/heroes/1").status_code, client.patch("/heroes/1", json={"age": 1}).status_code]
    with app.app_context():
        db.engine.dispose()

    assert set(statuses) == {200}


@postgres_only
def test_pgbouncer_sends_no_timeouts_and_warns_if_the_role_has_none(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    separator = "&" if "?" in database_url else "?"

    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{database_url}{separator}pgbouncer=true"})
    with app.app_context():
        assert db.session.execute(text("SHOW statement_timeout")).scalar() == "0"
        db.session.remove()
        db.engine.dispose()

    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "PgBouncer: statement_timeout is 0",
        "PgBouncer: lock_timeout is 0",
        "PgBouncer: idle_in_transaction_session_timeout is 0",
    ]


def test_start_without_the_pooler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    create_app({"SQLALCHEMY_DATABASE_URI": "postgresql://u:sentinel@127.0.0.1:1/heroes?pgbouncer=true"})

    [record] = caplog.records
    assert record.getMessage().startswith("PgBouncer: timeouts not checked, connection failed")
    assert "sentinel" not in record.getMessage()


def test_check_of_the_role_leaves_no_thread_that_a_fork_would_lose() -> None:
    threads = threading.active_count()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        create_app({"SQLALCHEMY_DATABASE_URI": f"postgresql://u@127.0.0.1:{port}/d?pgbouncer=true&connect_timeout=3"})
        assert threading.active_count() <= threads


def test_start_on_a_database_of_another_program_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('x')")

    config = {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"}
    with pytest.raises(ConfigError, match="^DATABASE_URL: Has migrations of another program.$"):
        create_app(config)

    # A command that repairs the database, or copies it, can still run.
    with click.Context(click.Command("flask")):
        app = create_app(config)
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("pgbouncer=true&prepare_threshold=5", "prepare_threshold must not be used with pgbouncer=true."),
        ("pgbouncer=yes", "Not a valid URL."),
        ("prepare_threshold=-1", "Not a valid URL."),
        ("sslmode", "Not a valid URL."),
        ("prepare_threshold=", "Not a valid URL."),
        ("connect_timeout=2s", "Not a valid URL."),
    ],
)
def test_invalid_url_parameter_is_one_line(query: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        create_app({"SQLALCHEMY_DATABASE_URI": f"postgresql://host/heroes?{query}"})

    assert raised.value.message == f"DATABASE_URL: {message}"


@postgres_only
def test_timeouts_are_set_in_the_session(database_url: str) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "DATABASE_TIMEOUT": 7})
    names = ("statement_timeout", "lock_timeout")

    with app.app_context():
        with db.engine.connect() as connection:
            settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        db.engine.dispose()

    assert settings == ["7s", "7s"]


@postgres_only
@pytest.mark.parametrize(
    "options, expected",
    [
        ("-c%20search_path%3Dpublic", {"statement_timeout": "7s", "lock_timeout": "7s", "search_path": "public"}),
        ("-c%20statement_timeout%3D9s", {"statement_timeout": "9s", "lock_timeout": "7s"}),
        ("--lock-timeout%3D8s", {"statement_timeout": "7s", "lock_timeout": "8s"}),
        ("", {"statement_timeout": "7s", "idle_in_transaction_session_timeout": "7s"}),
    ],
)
def test_timeouts_are_added_to_the_options_of_the_url(
    database_url: str, options: str, expected: dict[str, str]
) -> None:
    mark = "&" if "?" in database_url else "?"
    url = f"{database_url}{mark}options={options}"
    app = create_app({"SQLALCHEMY_DATABASE_URI": url, "DATABASE_TIMEOUT": 7})

    with app.app_context():
        with db.engine.connect() as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in expected}
        db.engine.dispose()
    assert found == expected


@pytest.mark.parametrize(
    "url, created",
    [
        ("sqlite:///{}/a.db", "a.db"),
        ("sqlite:///{}/a.db\n", "a.db"),
        (" sqlite:///{}/a.db ", "a.db"),
        ("sqlite+pysqlite:///{}/a.db", "a.db"),
        ("sqlite:///{}/a b#c.db", "a b#c.db"),
        ("sqlite:///{}/a.db?timeout=9", "a.db"),
        ("sqlite:///file:{}/a.db?uri=true", "a.db"),
        ("sqlite:///file:{}/a.db?uri=yes&mode=rwc", "a.db"),
        ("sqlite:///file:{}/a.db?uri=on", "a.db"),
        ("sqlite:///file:{}/a.db?mode=rw&cache=private&uri=1", "a.db"),
        ("sqlite:///file://{}/a.db?uri=true", "a.db"),
        ("sqlite:///file://localhost{}/a.db?uri=true", "a.db"),
        ("sqlite:///file:{}/a%20b.db?uri=true", "a b.db"),
        ("sqlite://", None),
        ("sqlite:///", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file::memory:?uri=true", None),
        ("sqlite:///file::memory:?cache=shared&uri=true", None),
        ("sqlite:///file:a?mode=memory&uri=true", None),
        ("sqlite:///file:a?mode=memory&cache=shared&uri=true\n", None),
    ],
)
def test_sqlite_urls_are_accepted_as_in_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, created: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app({"SQLALCHEMY_DATABASE_URI": url.format(tmp_path)})
    client = app.test_client()

    assert client.post("/heroes/", json=HERO).json == public()
    assert client.get("/heroes/1").json == public()
    assert client.get("/health/ready").status_code == 200
    with app.app_context():
        db.engine.dispose()
    files = [path.name for path in tmp_path.iterdir() if "-" not in path.name]
    assert files == ([] if created is None else [created])
    assert not Path(app.instance_path).exists()


def test_a_relative_file_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite:///file:a.db?uri=true"})

    with app.app_context():
        db.engine.dispose()
    assert (tmp_path / "a.db").exists()


@sqlite_only
def test_mode_ro_rejects_writes(app: Flask, client: FlaskClient, database_url: str) -> None:
    client.post("/heroes/", json=HERO)
    path = database_url.removeprefix("sqlite:///")
    reader = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///file:{path}?mode=ro&uri=true"})

    assert reader.test_client().get("/heroes/1").json == public()
    assert reader.test_client().post("/heroes/", json=HERO).status_code == 503
    with reader.app_context():
        db.engine.dispose()


@sqlite_only
def test_a_reader_does_not_need_the_log_of_a_writer(app: Flask, client: FlaskClient, database_url: str) -> None:
    client.post("/heroes/", json=HERO)
    uri = f"sqlite:///file:{database_url.removeprefix('sqlite:///')}?mode=ro&immutable=1&uri=true"
    reader = create_app({"SQLALCHEMY_DATABASE_URI": uri, "GUNICORN_THREADS": 2})
    with reader.app_context():
        held = db.engine.connect()
    with app.app_context():
        db.engine.dispose()  # the last connection of a writer removes the log

    assert reader.test_client().get("/heroes/1").json == public()
    held.close()
    with reader.app_context():
        db.engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://localhost/heroes",
        "nonsense",
        "postgresql://h:no-port/d",
        "sqlite:///no/such/folder/database.db",
        "database.db",
        "postgres://secret@host:port/heroes",
        "postgres://secret@host/heroes?unheard_of=1",
        "sqlite://secret@host/heroes.db",
        "sqlite:////nowhere/at/all/heroes.db",
        "sqlite:///secret.db?unheard_of=1",
        "sqlite:///secret.db?mode=memory",
        "sqlite:///secret.db?timeout=x",
        "sqlite:///file://secret/heroes.db?uri=true",
        "sqlite:///file:/nowhere/secret.db?mode=ro&uri=true",
        "postgres://secret@host:99999/heroes",
        "postgres://secret@host..example/heroes",
    ],
)
def test_invalid_url_is_one_line_without_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="^DATABASE_URL: ") as raised:
        create_app({"SQLALCHEMY_DATABASE_URI": url})

    assert "secret" not in raised.value.message
    assert "\n" not in raised.value.message


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    path.write_bytes(b"This is no database. " * 100)

    with pytest.raises(ConfigError, match="^DATABASE_URL: file is not a database$"):
        create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"})


def test_start_keeps_the_log_of_a_file_that_was_moved_away(tmp_path: Path) -> None:
    log = tmp_path / "database.db-wal"
    log.write_bytes(b"commits")

    with pytest.raises(ConfigError, match="^DATABASE_URL: The file is missing, but not its -wal file"):
        create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'database.db'}"})

    assert log.read_bytes() == b"commits"


def test_missing_postgres_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Python's own mark of a missing module.
    monkeypatch.setitem(sys.modules, "psycopg.conninfo", None)

    with pytest.raises(ConfigError, match=r"pip install '\.\[postgres\]'"):
        create_app({"SQLALCHEMY_DATABASE_URI": "postgres://host/heroes"})


def test_postgres_driver_without_its_library_is_one_line(tmp_path: Path) -> None:
    # Not installed: only the binary form is.
    environment = os.environ | {"PSYCOPG_IMPL": "c", "DATABASE_URL": "postgresql:///heroes"}
    started = subprocess.run(
        [sys.executable, "-c", "import wsgi"], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert started.stderr == "heroes: DATABASE_URL: PostgreSQL needs pip install '.[postgres]'\n"


def test_start_up_leaves_no_pooled_connection_for_forks(app: Flask) -> None:
    with app.app_context():
        assert pool().checkedin() == 0


@sqlite_only
def test_start_up_logs_the_sqlite_version(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heroes.storage")
    create_app({"SQLALCHEMY_DATABASE_URI": database_url})

    buggy = has_wal_reset_bug(sqlite3.sqlite_version_info)
    hint = ": has the WAL-reset bug, fixed in 3.51.3; let no other program write to the database" if buggy else ""
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING" if buggy else "INFO", f"SQLite {sqlite3.sqlite_version}{hint}")
    ]


@pytest.mark.parametrize(
    ("version", "buggy"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_the_wal_reset_bug_is_known_by_version(version: tuple[int, int, int], buggy: bool) -> None:
    assert has_wal_reset_bug(version) is buggy


def test_a_sqlite_without_returning_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with pytest.raises(ConfigError, match="^DATABASE_URL: Needs SQLite 3.35 or newer.$"):
        create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})


def test_session_uses_one_connection(app: Flask, query: Query) -> None:
    with app.app_context():
        db.session.add(Hero(**HERO))
        db.session.commit()
        hero = db.session.scalars(select(Hero)).one()
        db.session.connection().execute(text("SELECT 1"))

        assert pool().checkedout() == 1
        assert hero.name == "Deadpond"
        db.session.remove()
        assert pool().checkedout() == 0
        assert inspect(hero).detached
    assert query("SELECT name FROM hero") == [("Deadpond",)]


@postgres_only
@pytest.mark.parametrize("query, work_mem", [("", "9MB"), ("options=-c%20work_mem%3D8MB", "8MB")])
def test_pgoptions_of_the_environment_count_as_for_libpq(
    database_url: str, monkeypatch: pytest.MonkeyPatch, query: str, work_mem: str
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB")
    separator = "&" if "?" in database_url else "?"
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{database_url}{separator}{query}"})

    with app.app_context():
        with db.engine.connect() as connection:
            settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("work_mem", "lock_timeout")]
        db.engine.dispose()

    assert settings == [work_mem, "5s"]


@postgres_only
@pytest.mark.parametrize(("code", "status"), [("P0001", 500), ("HR001", 503), ("42501", 503)])
def test_message_of_a_trigger_is_not_logged(
    client: FlaskClient, query: Query, caplog: pytest.LogCaptureFixture, code: str, status: int
) -> None:
    query(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'no %', NEW.secret_name USING ERRCODE = '{code}'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON hero FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        response = client.post("/heroes/", json={"name": "A", "secret_name": "Sentinel"})
    finally:
        query("DROP FUNCTION refuse CASCADE")

    assert response.status_code == status
    assert code in caplog.text
    assert "Sentinel" not in caplog.text + response.text


@postgres_only
@pytest.mark.parametrize("target, kept", [("any", True), ("prefer-standby", True), (None, False)])
def test_connection_to_a_standby_that_was_asked_for_is_kept(database_url: str, target: str | None, kept: bool) -> None:
    arguments = {"options": "-c default_transaction_read_only=on"} | (
        {"target_session_attrs": target} if target else {}
    )
    settings = {"SQLALCHEMY_DATABASE_URI": database_url, "SQLALCHEMY_ENGINE_OPTIONS": {"connect_args": arguments}}
    app = create_app(settings | {"GUNICORN_THREADS": 1})

    def backend() -> object:
        with app.app_context(), db.engine.connect() as connection:
            return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    before = backend()
    assert app.test_client().post("/heroes/", json=HERO).status_code == 503
    assert (backend() == before) is kept
    with app.app_context():
        db.engine.dispose()


def test_start_on_a_new_file_waits_for_other_processes(tmp_path: Path) -> None:
    # SQLite does not wait if two processes put a file into WAL mode at once: one of them gets "database is locked".
    path = tmp_path / "database.db"
    starting = threading.Thread(target=create_app, args=[{"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"}])
    with locked(tmp_path):
        starting.start()
        starting.join(0.3)
        assert not path.exists()
    starting.join()
    assert path.exists()


def test_gunicorn_can_be_stopped_while_its_start_waits(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'database.db'}", "PORT": "0"}
    environment = os.environ | settings | measured()
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "wsgi:app"]
    with locked(tmp_path), subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as gunicorn:
        try:
            # One of the worker's threads waits for the lock.
            wait_until(lambda: any(each.num_threads() > 1 for each in psutil.Process(gunicorn.pid).children()))
        finally:
            gunicorn.send_signal(signal.SIGQUIT)
        _, log = gunicorn.communicate(timeout=45)

    assert (gunicorn.returncode, b"another program" in log) == (0, False)


def test_a_database_in_memory_checks_foreign_keys_after_its_migration() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})

    with app.app_context():
        assert db.session.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_failing_close_releases_the_writer_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close, threads = os.close, threading.Lock()

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError("as a network file system may")

    with monkeypatch.context() as patched, hold_writer_lock(str(tmp_path), threads, 1):
        patched.setattr(os, "close", fail)
    with hold_writer_lock(str(tmp_path), threads, 1):
        pass
