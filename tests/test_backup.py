"""`flask heroes backup`: a whole copy of a database in use, or none."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from heroes import create_app
from heroes.extensions import db
from tests.conftest import ROOT

sqlite_only = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def rows(path: Path) -> list[tuple[object, ...]]:
    """The heroes in a SQLite file that is whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT id, name, age, secret_name FROM hero ORDER BY id").fetchall()


@contextmanager
def writing(path: Path) -> Iterator[list[int]]:
    """Another connection inserts heroes, one a commit, in the order of their ids: the last that is stored."""
    last, begun, over = [0], threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            while not over.is_set():
                hero = connection.execute(
                    "INSERT INTO hero (name, secret_name) VALUES (hex(randomblob(99)), 'x') RETURNING id"
                )
                last[0] = hero.fetchone()[0]
                begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(30)
        yield last
    finally:
        over.set()
        thread.join()


def fill(path: Path, count: int) -> None:
    """Stores `count` heroes of 500 bytes each."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO hero (name, secret_name) VALUES (?, ?)", ((f"Hero {n}", "s" * 500) for n in range(count))
        )


@sqlite_only
def test_a_backup_under_load_is_one_moment(runner, database_url, tmp_path):
    """Everything that was stored before it began, and of what came later nothing, or what came first."""
    live = tmp_path / "database.db"
    fill(live, 20_000)  # some 3,000 pages: the copy takes several steps

    with writing(live) as last:
        before = last[0]
        result = runner.invoke(args=["heroes", "backup", str(tmp_path / "copy.db")])
        after = last[0]

    ids = [row[0] for row in rows(tmp_path / "copy.db")]
    assert result.exit_code == 0
    assert before < after  # nobody had to wait for the backup
    assert before <= len(ids) <= after
    assert ids == list(range(1, len(ids) + 1))


@sqlite_only
def test_a_backup_restores_by_copying(runner, client, database_url, tmp_path):
    live, copy = tmp_path / "database.db", tmp_path / "copy.db"
    client.post("/heroes/", json={"name": "Deadpond", "secret_name": "Dive Wilson"})

    result = runner.invoke(args=["heroes", "backup", str(copy)])
    client.delete("/heroes/1")
    with client.application.app_context():
        db.engine.dispose()  # the service stops, and the last to leave removes the -wal
    assert not Path(f"{live}-wal").exists()
    shutil.copyfile(copy, live)
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url})

    assert (result.exit_code, result.stdout) == (0, "")
    assert app.test_client().get("/heroes/").json == [{"name": "Deadpond", "age": None, "id": 1}]
    assert app.test_client().post("/heroes/", json={"name": "A", "secret_name": "a"}).json["id"] == 2
    with app.app_context():
        db.engine.dispose()


@sqlite_only
def test_a_backup_is_one_file_and_its_owners_alone(runner, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "copy.db").write_text("the one of before")

    runner.invoke(args=["heroes", "backup", str(folder / "copy.db")])

    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    assert rows(folder / "copy.db") == []


@sqlite_only
@pytest.mark.parametrize("name", ["database.db", "database.db-wal", "database.db-shm", "link.db"])
@pytest.mark.parametrize("command", [["backup"], ["export", "--format", "csv"]])
def test_nothing_overwrites_the_database(runner, client, tmp_path, name, command):
    client.post("/heroes/", json={"name": "Deadpond", "secret_name": "Dive Wilson"})
    (tmp_path / "link.db").symlink_to("database.db")

    result = runner.invoke(args=["heroes", *command, str(tmp_path / name)])

    file = (tmp_path / name).resolve()
    assert (result.exit_code, result.stderr) == (1, f"Error: {file}: That is the database itself.\n")
    assert rows(tmp_path / "database.db") == [(1, "Deadpond", None, "Dive Wilson")]


@sqlite_only
def test_a_backup_leaves_other_databases_in_use_alone(runner, tmp_path):
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        result = runner.invoke(args=["heroes", "backup", str(other)])

        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: {other}: A database in use, {other}-wal belongs to it.\n",
        )


@sqlite_only
@pytest.mark.parametrize(
    ("name", "words"), [("/dev/null", "Not a regular file."), ("/nowhere/copy.db", "No such file or directory")]
)
def test_a_place_for_no_backup(runner, name, words):
    result = runner.invoke(args=["heroes", "backup", name])

    assert (result.exit_code, result.stderr) == (1, f"Error: {name}: {words}\n")
    assert Path("/dev/null").is_char_device()


@sqlite_only
def test_a_disk_that_fills_up_leaves_the_backup_of_before(database_url, migrated_sqlite, tmp_path):
    fill(tmp_path / "database.db", 2_000)
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "copy.db").write_text("the one of before")

    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "heroes", "backup", str(folder / "copy.db")],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        timeout=60,
    )

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(b"Error: database: ")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"copy.db": "the one of before"}


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_for_postgresql_there_is_pg_dump(runner, tmp_path):
    result = runner.invoke(args=["heroes", "backup", str(tmp_path / "copy.db")])

    assert result.exit_code == 1
    assert "pg_dump" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "copy.db").exists()
