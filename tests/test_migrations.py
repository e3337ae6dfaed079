"""The schema comes from migrations alone, and a tutorial database is adopted as it is."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect

from heroes import create_app
from heroes.database import MIGRATIONS, outdated_revisions
from heroes.extensions import db

ROOT = Path(__file__).parent.parent
sqlite_only = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)

# As the tutorial app makes it.
TUTORIAL = """
CREATE TABLE hero (
    name VARCHAR NOT NULL,
    age INTEGER,
    id INTEGER NOT NULL,
    secret_name VARCHAR NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_hero_name ON hero (name);
CREATE INDEX ix_hero_age ON hero (age);
INSERT INTO hero (name, age, secret_name) VALUES ('Deadpond', NULL, 'Dive Wilson'), ('Rusty-Man', 48, 'Tommy Sharp');
"""


def tables():
    """The tables of the current app's database, without Alembic's own."""
    return set(inspect(db.engine).get_table_names()) - {"alembic_version"}


@pytest.fixture
def empty_app(empty_database_url):
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def client_of():
    """client_of(url): a test client of the service on that database."""
    with ExitStack() as stack:

        def start(url):
            app = create_app({"SQLALCHEMY_DATABASE_URI": url})
            stack.enter_context(app.app_context())
            stack.callback(db.engine.dispose)
            stack.callback(db.session.remove)
            return app.test_client()

        yield start


@pytest.fixture
def tutorial_database(tmp_path):
    path = tmp_path / "database.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TUTORIAL)
    return path


def test_the_models_are_what_the_migrations_make(empty_app):
    upgrade()
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, db.metadata) == []


@sqlite_only
def test_ids_count_up_where_the_model_says_so(empty_app, query):
    # Alembic doesn't compare this.
    made = {name for (name,) in query("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")}

    assert made == {t.name for t in db.metadata.tables.values() if t.dialect_options["sqlite"]["autoincrement"]}


def test_down_and_up_again(empty_app):
    upgrade()
    assert tables() == set(db.metadata.tables)

    downgrade(revision="base")
    assert tables() == set()

    upgrade()
    assert tables() == set(db.metadata.tables)


def test_each_migration_goes_down_and_up_with_rows_in_the_table(empty_app):
    upgrade()
    client = empty_app.test_client()
    hero = client.post("/heroes/", json={"name": "Deadpond", "secret_name": "Dive Wilson", "age": 3}).json

    downgrade(revision="0001")
    upgrade()

    assert client.get("/heroes/").json == [hero]


def test_a_failed_migration_leaves_the_schema_as_it_was(empty_app):
    """The last of its statements fails, after those of several migrations went through."""
    upgrade()
    downgrade(revision="0001")
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE idempotency_key (id INTEGER)")
    before = tables()

    with pytest.raises(Exception, match="already exists"):
        upgrade()

    db.session.remove()
    assert tables() == before
    assert "version" not in {column["name"] for column in inspect(db.engine).get_columns("hero")}


@sqlite_only
def test_a_later_release_s_schema_is_left_alone(database_url, query, client_of):
    query("UPDATE alembic_version SET version_num = '9999'")

    client = client_of(database_url)

    assert client.post("/heroes/", json={"name": "Deadpond", "secret_name": "Dive Wilson"}).status_code == 200
    assert query("SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_tutorial_database_is_adopted(tutorial_database, client_of):
    client = client_of(f"sqlite:///{tutorial_database}")

    assert client.get("/heroes/").json == [
        {"name": "Deadpond", "age": None, "id": 1},
        {"name": "Rusty-Man", "age": 48, "id": 2},
    ]
    assert client.get("/health/ready").status_code == 200
    assert client.patch("/heroes/2", json={"age": 49}).json == {"name": "Rusty-Man", "age": 49, "id": 2}
    assert client.post("/heroes/", json={"name": "Spider-Boy", "secret_name": "Pedro Parqueador"}).json["id"] == 3
    assert client.delete("/heroes/1").json == {"ok": True}


def test_the_tutorial_app_can_still_use_it(tutorial_database, client_of):
    client = client_of(f"sqlite:///{tutorial_database}")

    with closing(sqlite3.connect(tutorial_database)) as connection, connection:
        connection.execute("INSERT INTO hero (name, age, secret_name) VALUES ('Spider-Boy', NULL, 'Pedro Parqueador')")
        connection.execute("UPDATE hero SET age = 49 WHERE hero.id = 2")
        connection.execute("DELETE FROM hero WHERE hero.id = 1")
        rows = connection.execute("SELECT hero.name, hero.age, hero.id, hero.secret_name FROM hero").fetchall()

    assert rows == [("Rusty-Man", 49, 2, "Tommy Sharp"), ("Spider-Boy", None, 3, "Pedro Parqueador")]
    assert client.get("/heroes/").json == [
        {"name": "Rusty-Man", "age": 49, "id": 2},
        {"name": "Spider-Boy", "age": None, "id": 3},
    ]


@postgres_only
def test_upgrades_at_the_same_time_wait_for_each_other(empty_database_url, client_of):
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
    environment = os.environ | {"DATABASE_URL": empty_database_url}
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(4)
    ]
    for process in started:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    assert client_of(empty_database_url).get("/health/ready").json == {"status": "ok"}


@postgres_only
def test_a_migration_may_take_longer_than_a_request(empty_database_url):
    """Another migration holds the lock for longer than DATABASE_TIMEOUT."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url, "DATABASE_TIMEOUT": 1})
    with psycopg.connect(empty_database_url) as other, app.app_context():
        other.execute("SELECT pg_advisory_xact_lock(1212502867)")
        timer = threading.Timer(1.5, other.rollback)
        timer.start()
        upgrade()
        timer.join()
        assert tables() == set(db.metadata.tables)
        db.session.remove()
        db.engine.dispose()


def test_outdated_are_all_revisions_but_alembic_s_heads():
    script = ScriptDirectory(str(MIGRATIONS))

    assert outdated_revisions() == {each.revision for each in script.walk_revisions()} - set(script.get_heads())
