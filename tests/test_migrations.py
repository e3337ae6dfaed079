"""Only migrations create the schema, and a database of the tutorial is adopted."""

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import Migrate, check, downgrade, revision, upgrade
from sqlalchemy import Column, Constraint, ForeignKeyConstraint, MetaData, Table, UniqueConstraint, inspect, text

from heroes import create_app
from heroes.config import ConfigError
from heroes.extensions import NAMING_CONVENTION, db, migrate
from heroes.storage.columns import Int64
from heroes.storage.schema import is_behind, known_revisions
from tests.commands import start_flask
from tests.constants import HERO, ROOT, Query, postgres_only, public, sqlite_only
from tests.databases import migrated

# The table as the tutorial app creates it.
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


def tables() -> Any:
    """Return the tables of the current app's database, without Alembic's own."""
    return set(inspect(db.engine).get_table_names()) - {"alembic_version"}


@pytest.fixture
def empty_app(empty_database_url: str) -> Iterator[Any]:
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def client_of() -> Iterator[Any]:
    """client_of(url): a test client of the service on that database."""
    with ExitStack() as stack:

        def start(url: str) -> Any:
            app = create_app({"SQLALCHEMY_DATABASE_URI": url})
            stack.enter_context(app.app_context())
            stack.callback(db.engine.dispose)
            stack.callback(db.session.remove)
            return app.test_client()

        yield start


def add_versions(folder: Path, config: Any) -> Any:
    """Add the migrations in a folder to the configuration."""
    config.set_main_option("version_locations", f"{ROOT}/heroes/migrations/versions {folder}")
    config.set_main_option("path_separator", "space")
    return config


@pytest.fixture
def tutorial_database(tmp_path: Path) -> Any:
    path = tmp_path / "database.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TUTORIAL)
    return path


def test_migrations_create_the_schema_of_the_models(empty_app: Flask) -> None:
    upgrade()
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, db.metadata) == []


@postgres_only
def test_table_of_the_tutorial_gets_the_types_of_the_models(empty_database_url: str, empty_app: Flask) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE hero (name VARCHAR NOT NULL, age INT, id SERIAL PRIMARY KEY, secret_name VARCHAR NOT NULL);"
            "CREATE INDEX ix_hero_name ON hero (name); CREATE INDEX ix_hero_age ON hero (age)"
        )
        upgrade()
        connection.execute("SELECT setval('hero_id_seq', 2147483647)")
    with db.engine.connect() as connected:
        context = MigrationContext.configure(connected, opts={"compare_type": True})
        assert compare_metadata(context, db.metadata) == []
    client = empty_app.test_client()

    for name, age in (("b", 2**63 - 1), ("B", -(2**63))):
        assert client.post("/heroes/", json=HERO | {"name": name, "age": age}).get_json()["age"] == age
    heroes = client.get("/heroes/?sort=name").get_json()
    assert [(hero["name"], hero["id"]) for hero in heroes] == [("B", 2147483649), ("b", 2147483648)]


@postgres_only
def test_columns_that_have_their_types_may_be_used_by_a_view(empty_app: Flask) -> None:
    upgrade(revision="0004")
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW grown_ups AS SELECT id, name FROM hero WHERE age > 17")

    upgrade()
    with db.engine.connect() as connection:
        assert not is_behind(connection)


@sqlite_only
def test_tables_with_autoincrement_are_those_of_the_models(empty_app: Flask, query: Query) -> None:
    # Alembic doesn't compare this.
    made = {name for (name,) in query("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")}

    assert made == {t.name for t in db.metadata.tables.values() if t.dialect_options["sqlite"]["autoincrement"]}


def test_down_and_up_again(empty_app: Flask) -> None:
    upgrade()
    assert tables() == set(db.metadata.tables)

    downgrade(revision="base")
    assert tables() == set()

    upgrade()
    assert tables() == set(db.metadata.tables)


def test_each_migration_goes_down_and_up_with_rows_in_the_table(empty_app: Flask) -> None:
    upgrade()
    client = empty_app.test_client()
    hero = client.post("/heroes/", json=HERO | {"age": 3}).json

    downgrade(revision="0001")
    upgrade()

    assert client.get("/heroes/").json == [hero]


@pytest.mark.parametrize("kept", [["hero"], ["hero", "idempotency_key"]])
def test_tables_without_those_of_alembic_are_adopted(empty_app: Flask, query: Query, kept: list[str]) -> None:
    upgrade()
    client = empty_app.test_client()
    before = client.post("/heroes/", json=HERO, headers={"Idempotency-Key": "a"})
    for table in {"alembic_version", "idempotency_key"} - set(kept):
        db.session.execute(text(f"DROP TABLE {table}"))
    db.session.commit()

    upgrade()

    assert not compare_metadata(MigrationContext.configure(db.session.connection()), db.metadata)
    after = client.get("/heroes/1")
    assert (after.json, after.headers["ETag"]) == (before.json, before.headers["ETag"])
    replayed = client.post("/heroes/", json=HERO, headers={"Idempotency-Key": "a"})
    assert ("Idempotent-Replayed" in replayed.headers) is ("idempotency_key" in kept)


def test_failed_migration_is_rolled_back(empty_app: Flask) -> None:
    """The last of its statements fails, after those of several migrations went through."""
    upgrade()
    downgrade(revision="0001")
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE idempotency_key (id INTEGER)")
    before = tables()

    with pytest.raises(Exception, match="created_at"):
        upgrade()

    db.session.remove()
    assert tables() == before
    assert "version" not in {column["name"] for column in inspect(db.engine).get_columns("hero")}


@sqlite_only
def test_schema_of_a_later_release_is_not_changed(
    database_url: str, query: Query, client_of: Callable[[str], FlaskClient]
) -> None:
    query("UPDATE alembic_version SET version_num = '9999'")

    client = client_of(database_url)

    assert client.post("/heroes/", json=HERO).status_code == 200
    assert query("SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_tutorial_database_is_adopted(tutorial_database: Path, client_of: Callable[[str], FlaskClient]) -> None:
    client = client_of(f"sqlite:///{tutorial_database}")

    assert client.get("/heroes/").json == [
        public(),
        public(name="Rusty-Man", age=48, id=2),
    ]
    assert client.get("/health/ready").status_code == 200
    assert client.patch("/heroes/2", json={"age": 49}).json == public(name="Rusty-Man", age=49, id=2)
    assert client.post("/heroes/", json={"name": "Spider-Boy", "secret_name": "Pedro Parqueador"}).get_json()["id"] == 3
    assert client.delete("/heroes/1").json == {"ok": True}


def test_tutorial_app_can_use_a_migrated_database(
    tutorial_database: Path, client_of: Callable[[str], FlaskClient]
) -> None:
    client = client_of(f"sqlite:///{tutorial_database}")

    with closing(sqlite3.connect(tutorial_database)) as connection, connection:
        connection.execute("INSERT INTO hero (name, age, secret_name) VALUES ('Spider-Boy', NULL, 'Pedro Parqueador')")
        connection.execute("UPDATE hero SET age = 49 WHERE hero.id = 2")
        connection.execute("DELETE FROM hero WHERE hero.id = 1")
        rows = connection.execute("SELECT hero.name, hero.age, hero.id, hero.secret_name FROM hero").fetchall()

    assert rows == [("Rusty-Man", 49, 2, "Tommy Sharp"), ("Spider-Boy", None, 3, "Pedro Parqueador")]
    assert client.get("/heroes/").json == [
        public(name="Rusty-Man", age=49, id=2),
        public(name="Spider-Boy", id=3),
    ]


def test_sql_of_the_migrations_creates_the_schema(
    empty_database_url: str, empty_app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite = empty_database_url.startswith("sqlite")
    # For SQLite, Alembic can't print a migration that adds a foreign key to a table.
    upgrade(sql=True, revision="0005" if sqlite else "head")
    printed = capsys.readouterr().out
    if sqlite:
        # The file is migrated by now.
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(printed)
            columns = {row[1] for row in connection.execute("PRAGMA table_info(hero)")}
        assert columns == {"id", "name", "age", "secret_name", "version"}
        return
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(printed.encode())
    with db.engine.connect() as connected:
        assert compare_metadata(MigrationContext.configure(connected), db.metadata) == []
        assert not is_behind(connected)


@postgres_only
def test_a_table_in_another_schema_of_the_search_path_is_adopted(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(TUTORIAL.replace("INTEGER NOT NULL,\n    secret", "SERIAL NOT NULL,\n    secret"))
        connection.execute("CREATE SCHEMA first")
    separator = "&" if "?" in empty_database_url else "?"
    migrated(f"{empty_database_url}{separator}options=-c%20search_path%3Dfirst,public")

    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM public.hero WHERE version = 1").fetchone() == (2,)
        assert connection.execute("SELECT to_regclass('first.hero')").fetchone() == (None,)


def test_check_fails_only_if_the_models_have_changed(empty_app: Flask) -> None:
    upgrade()
    check()

    with db.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_hero_age")
    with pytest.raises(SystemExit):
        check()


@pytest.mark.parametrize("changed", [False, True])
def test_migrate_uses_the_options_of_flask_migrate_and_writes_no_empty_file(tmp_path: Path, changed: bool) -> None:
    seen: list[str] = []

    def include(_: object, name: str, kind: str, *args: object) -> bool:
        seen.append(kind)
        return True

    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/database.db"})
    own = Migrate(app, db, directory=migrate.directory, include_object=include)
    own.configure(partial(add_versions, tmp_path))
    with app.app_context():
        if changed:
            with db.engine.begin() as connection:
                connection.exec_driver_sql("DROP INDEX ix_hero_age")
        revision(autogenerate=True, version_path=str(tmp_path))
        db.engine.dispose()

    assert "table" in seen
    assert [("ix_hero_age" in path.read_text()) for path in tmp_path.glob("*.py")] == [True] * changed


def test_a_new_base_can_have_a_branch_label(tmp_path: Path) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/database.db"})
    own = Migrate(app, db, directory=migrate.directory)
    own.configure(partial(add_versions, tmp_path))
    with app.app_context():
        revision(head="base", branch_label="billing", version_path=str(tmp_path))
        db.engine.dispose()

    [path] = tmp_path.glob("*.py")
    assert "branch_labels = ('billing',)" in path.read_text()


@postgres_only
def test_concurrent_upgrades_wait_for_each_other(
    empty_database_url: str, client_of: Callable[[str], FlaskClient]
) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [start_flask(empty_database_url, "db", "upgrade", **pipes) for _ in range(2)]
    for process in started:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    assert client_of(empty_database_url).get("/health/ready").json == {"status": "ok"}


@postgres_only
def test_a_migration_may_take_longer_than_a_request(empty_database_url: str) -> None:
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


@sqlite_only
@pytest.mark.parametrize("at", ["before", "left"])
def test_migrations_of_two_branches_are_applied(
    at: str, database_url: str, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two developers have each added one. `flask db merge` needs an app that starts."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.directory, folder)
    (head,) = ScriptDirectory(str(folder)).get_heads()
    for name in ("left", "right"):
        script = f'revision, down_revision = "{name}", "{head}"\n\n\ndef upgrade(): ...\n'
        (folder / f"versions/{name}.py").write_text(script)
    monkeypatch.setattr(migrate, "directory", str(folder))
    if at == "left":
        query("UPDATE alembic_version SET version_num = 'left'")

    create_app({"SQLALCHEMY_DATABASE_URI": database_url})

    assert sorted(query("SELECT version_num FROM alembic_version")) == [("left",), ("right",)]


def test_the_newest_revisions_are_alembic_s_heads(empty_app: Flask) -> None:
    script = ScriptDirectory(str(ROOT / "heroes/migrations"))

    newest = {revision for revision, is_newest in known_revisions(script.dir).items() if is_newest}
    assert newest == set(script.get_heads())


def test_version_table_and_locations_of_alembic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.directory, folder)
    (folder / "versions").rename(folder / "revisions")
    options = "version_locations = %(here)s/revisions\npath_separator = os\n"
    (folder / "alembic.ini").write_text(f"[alembic]\n{options}")
    monkeypatch.setattr(migrate, "directory", str(folder))
    monkeypatch.setitem(migrate.alembic_ctx_kwargs, "version_table", "heroes_version")

    app = create_app({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/database.db"})

    assert app.test_client().get("/health/ready").status_code == 200
    with app.app_context():
        assert set(inspect(db.engine).get_table_names()) == {*db.metadata.tables, "heroes_version"}
        db.engine.dispose()


def test_a_migration_keeps_the_ids_that_were_given_out(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    url = {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{path}"}
    app = create_app(url)
    client = app.test_client()
    for _ in range(2):
        client.post("/heroes/", json=HERO)
    client.delete("/heroes/2")
    with app.app_context():
        downgrade(revision="0003")
        db.engine.dispose()

    app = create_app(url)
    assert app.test_client().post("/heroes/", json=HERO).get_json()["id"] == 3
    with app.app_context():
        db.engine.dispose()


# Behind the newest revision.
REBUILD = """
from alembic import op

revision, down_revision = "rebuilt", "{}"


def upgrade():
    op.execute("DELETE FROM hero WHERE name = 'Gone'")
    with op.batch_alter_table("hero") as batch_op:
        batch_op.create_check_constraint("ck_hero_age", "age >= 0")
"""


@pytest.fixture
def rebuild(tmp_path: Path) -> Iterator[None]:
    """Add a migration that deletes heroes and rebuilds their table."""
    (head,) = ScriptDirectory(f"{ROOT}/heroes/migrations").get_heads()
    (tmp_path / "rebuild.py").write_text(REBUILD.format(head))
    migrate.configure(partial(add_versions, tmp_path))
    yield
    migrate.configure_callbacks.clear()


@sqlite_only
def test_a_table_rebuilt_by_the_first_upgrade_has_autoincrement(empty_database_url: str, rebuild: None) -> None:
    migrated(empty_database_url)

    with closing(sqlite3.connect(empty_database_url.removeprefix("sqlite:///"))) as connection:
        [(sql,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'hero'")
    assert "ck_hero_age" in sql
    assert "AUTOINCREMENT" in sql


@sqlite_only
def test_a_rebuilt_table_keeps_its_rows_and_its_autoincrement(
    app: Flask, client: FlaskClient, query: Query, request: pytest.FixtureRequest
) -> None:
    for _ in range(2):
        client.post("/heroes/", json=HERO)
    client.delete("/heroes/2")
    request.getfixturevalue("rebuild")

    with app.app_context():
        upgrade()
    [(sql,)] = query("SELECT sql FROM sqlite_master WHERE name = 'hero'")
    assert "AUTOINCREMENT" in str(sql) and "ck_hero_age" in str(sql)
    assert client.post("/heroes/", json=HERO).json == public(id=3)
    assert [hero["id"] for hero in client.get("/heroes/").get_json()] == [1, 3]


# Rows that refer to rows that do not exist. The tutorial's programs leave them: they don't turn foreign keys on.
SIDEKICKS = "CREATE TABLE sidekick (id INTEGER PRIMARY KEY, other_id {}; INSERT INTO sidekick VALUES (1, 98), (2, 99)"
ORPHANS = [
    "CREATE TABLE squad (id INTEGER PRIMARY KEY);"
    "ALTER TABLE hero ADD COLUMN squad_id INTEGER REFERENCES squad (id);"
    "ALTER TABLE hero ADD COLUMN rival_id INTEGER REFERENCES hero (id);"
    "ALTER TABLE hero ADD COLUMN partner_id INTEGER REFERENCES squad (id);"
    "UPDATE hero SET squad_id = 44, rival_id = 99, partner_id = id;",
    SIDEKICKS.format("REFERENCES hero (id))"),
    SIDEKICKS.format("REFERENCES hero (id)) WITHOUT ROWID"),
    SIDEKICKS.format("REFERENCES villain (id))"),
]


@pytest.mark.parametrize("orphans", ORPHANS)
def test_references_that_were_broken_before_a_migration_are_kept(
    tutorial_database: Path, client_of: Callable[[str], FlaskClient], rebuild: None, orphans: str
) -> None:
    with closing(sqlite3.connect(tutorial_database)) as connection:
        connection.executescript(orphans)
        before = connection.execute("SELECT count(*) FROM pragma_foreign_key_check").fetchall()

        client = client_of(f"sqlite:///{tutorial_database}")

        assert connection.execute("SELECT count(*) FROM pragma_foreign_key_check").fetchall() == before != [(0,)]
    assert client.get("/heroes/").json == [public(), public(name="Rusty-Man", age=48, id=2)]


@pytest.mark.parametrize("options", ["", "WITHOUT ROWID"])
def test_a_migration_that_breaks_a_reference_is_refused(
    tutorial_database: Path, client_of: Callable[[str], FlaskClient], rebuild: None, options: str
) -> None:
    with closing(sqlite3.connect(tutorial_database)) as connection:
        connection.executescript(
            "INSERT INTO hero (id, name, secret_name) VALUES (9, 'Gone', 's');"
            f"CREATE TABLE fan (id INTEGER PRIMARY KEY, hero_id INTEGER REFERENCES hero (id)) {options};"
            "INSERT INTO fan VALUES (1, 99), (2, 9)"
        )

        with pytest.raises(ConfigError, match="1 rows refer to rows that do not exist, the first in table fan"):
            client_of(f"sqlite:///{tutorial_database}")

        # A command that repairs the database, or copies it, can still run.
        with click.Context(click.Command("flask")):
            client = client_of(f"sqlite:///{tutorial_database}")
        assert client.get("/health/ready").json == {"detail": "Database schema is behind"}
        assert connection.execute("SELECT name FROM hero WHERE id = 9").fetchall() == [("Gone",)]


@sqlite_only
def test_a_stop_during_a_migration_is_no_error(empty_database_url: str, tmp_path: Path) -> None:
    """gunicorn's workers end by SystemExit, with code 0, in whatever they do."""
    (head,) = ScriptDirectory(f"{ROOT}/heroes/migrations").get_heads()
    code = f"revision, down_revision = 'stop', '{head}'\n\n\ndef upgrade():\n    raise SystemExit(0)\n"
    (tmp_path / "stop.py").write_text(code)
    migrate.configure(partial(add_versions, tmp_path))
    try:
        with pytest.raises(SystemExit) as stopped:
            create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})
    finally:
        migrate.configure_callbacks.clear()
    assert stopped.value.code == 0


@pytest.mark.parametrize("kind", ["uq", "fk"])
def test_constraints_that_begin_with_the_same_column_have_different_names(kind: str) -> None:
    columns = [Column(name, Int64) for name in "abc"]
    made: list[Constraint] = []
    for names in (["a", "b"], ["a", "c"]):
        made.append(UniqueConstraint(*names) if kind == "uq" else ForeignKeyConstraint(names, ["other.x", "other.y"]))
    Table("named", MetaData(naming_convention=NAMING_CONVENTION), *columns, *made)

    assert len({constraint.name for constraint in made}) == 2
