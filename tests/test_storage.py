"""An acknowledged write is on disk; the database is chosen by DATABASE_URL alone."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text

from heroes import create_app
from heroes.config import ConfigError
from heroes.database import engine_options, has_wal_reset_bug
from heroes.extensions import db
from heroes.models import Hero

ROOT = Path(__file__).parent.parent
sqlite_only = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)

HERO = {"name": "Deadpond", "secret_name": "Dive Wilson"}
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


@pytest.mark.skipif(not shutil.which("strace") and "CI" not in os.environ, reason="needs strace (a Debian package)")
def test_every_acknowledged_write_is_an_fsync(tmp_path):
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fsync,fdatasync,write", "-o", trace, sys.executable, "-c", WRITES]
    subprocess.run([*command, f"sqlite:///{tmp_path / 'database.db'}"], cwd=ROOT, check=True, timeout=60)

    _, calls = trace.read_text().split('write(1, "started"')
    *before_answers, _ = calls.split('write(1, "answered"')
    syncs = [len(re.findall(r"\b(?:fsync|fdatasync)\(", before)) for before in before_answers]
    assert len(syncs) == 12
    assert min(syncs) >= 1


@sqlite_only
def test_each_pooled_connection_is_durable(app):
    with app.app_context(), db.engine.connect() as one, db.engine.connect() as another:
        for connection in (one, another):
            names = ("journal_mode", "synchronous", "foreign_keys")
            assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names] == ["wal", 2, 1]


@postgres_only
def test_postgres_commits_before_it_answers(app):
    with app.app_context(), db.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("fsync", "synchronous_commit")]

    assert settings == ["on", "on"]


def test_ages_and_ids_have_64_bits(client, query):
    query(f"INSERT INTO hero (id, name, age, secret_name) VALUES ({BIG}, 'a', {-BIG}, 'b')")

    assert client.get(f"/heroes/{BIG}").json == {"name": "a", "age": -BIG, "id": BIG}
    assert client.patch(f"/heroes/{BIG}", json={"age": BIG}).json["age"] == BIG


def test_the_id_of_a_deleted_hero_is_not_given_out_again(client):
    first = client.post("/heroes/", json=HERO).json["id"]
    client.delete(f"/heroes/{first}")

    assert client.post("/heroes/", json=HERO).json["id"] > first


@postgres_only
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_urls_as_platforms_hand_them_out(database_url, scheme):
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"{scheme}://{database_url.split('://', 1)[1]}"})

    assert app.test_client().post("/heroes/", json=HERO).json["name"] == "Deadpond"
    with app.app_context():
        db.engine.dispose()


def test_several_hosts_mean_the_one_that_takes_writes():
    url, options = engine_options("postgres://u:p@one:5432,two:5433/heroes?sslmode=require", 7, 3)
    arguments = options["connect_args"]

    assert str(url) == "postgresql+psycopg://"
    assert (arguments["host"], arguments["port"], arguments["sslmode"]) == ("one,two", "5432,5433", "require")
    assert arguments["target_session_attrs"] == "read-write"
    assert (options["pool_size"], options["max_overflow"], options["pool_pre_ping"]) == (3, 0, True)


def test_what_the_url_says_comes_first():
    _, options = engine_options("postgres://a,b/heroes?target_session_attrs=any&connect_timeout=2", 5, 4)

    assert options["connect_args"]["target_session_attrs"] == "any"
    assert options["connect_args"]["connect_timeout"] == "2"


@postgres_only
def test_timeouts_are_the_sessions(database_url):
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "DATABASE_TIMEOUT": 7})
    names = ("statement_timeout", "lock_timeout")

    with app.app_context():
        with db.engine.connect() as connection:
            settings = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        db.engine.dispose()

    assert settings == ["7s", "7s"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://localhost/heroes",
        "database.db",
        "postgres://secret@host:port/heroes",
        "postgres://secret@host/heroes?unheard_of=1",
        "sqlite://secret@host/heroes.db",
        "sqlite:////nowhere/at/all/heroes.db",
    ],
)
def test_a_wrong_url_is_one_line_without_the_url(url):
    with pytest.raises(ConfigError, match="^DATABASE_URL: ") as raised:
        create_app({"SQLALCHEMY_DATABASE_URI": url})

    assert "secret" not in raised.value.message
    assert "\n" not in raised.value.message


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    path = tmp_path / "database.db"
    path.write_bytes(b"This is no database. " * 100)

    with pytest.raises(ConfigError, match="^DATABASE_URL: file is not a database$"):
        create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"})


def test_postgres_without_its_driver_is_one_line(monkeypatch):
    # How Python itself marks a module that is not there.
    monkeypatch.setitem(sys.modules, "psycopg.conninfo", None)

    with pytest.raises(ConfigError, match=r"pip install heroes\[postgres\]"):
        create_app({"SQLALCHEMY_DATABASE_URI": "postgres://host/heroes"})


def test_a_path_is_relative_to_where_the_server_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite:///here.db"})
    with app.app_context():
        db.engine.dispose()

    assert (tmp_path / "here.db").exists()


def test_databases_in_memory_share_nothing():
    apps = [create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"}) for _ in range(2)]
    one, another = (app.test_client() for app in apps)
    one.post("/heroes/", json=HERO)

    assert (len(one.get("/heroes/").json), another.get("/heroes/").json) == (1, [])
    for app in apps:
        with app.app_context():
            db.engine.dispose()


def test_start_up_holds_no_connection_for_a_fork_to_take_along(app):
    with app.app_context():
        assert db.engine.pool.checkedin() == 0


@sqlite_only
def test_start_up_says_which_sqlite_it_is(serve):
    server = serve(LOG_LEVEL="info")

    assert f"SQLite {sqlite3.sqlite_version}" in server.log.read_text()


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
def test_the_wal_reset_bug_is_known_by_version(version, buggy):
    assert has_wal_reset_bug(version) is buggy


def test_objects_live_on_the_session_s_one_connection(app, query):
    with app.app_context():
        db.session.add(Hero(name="Deadpond", secret_name="Dive Wilson"))
        db.session.commit()
        hero = db.session.scalars(select(Hero)).one()
        db.session.connection().execute(text("SELECT 1"))

        assert db.engine.pool.checkedout() == 1
        assert hero.name == "Deadpond"
        db.session.remove()
        assert db.engine.pool.checkedout() == 0
        assert inspect(hero).detached
    assert query("SELECT name FROM hero") == [("Deadpond",)]


def test_a_context_leaves_nothing_in_a_session_that_the_next_one_gets(app, query):
    with app.app_context():
        db.session.add(Hero(name="Deadpond", secret_name="Dive Wilson"))
        left = db.session()
    with app.app_context():
        assert db.session() is left
        assert not left.in_transaction()
        assert db.session.scalars(select(Hero)).all() == []
        assert list(left.new) == []
        with app.app_context():
            assert db.session() is not left
    assert query("SELECT name FROM hero") == []
