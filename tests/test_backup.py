"""`flask heroes backup`: a consistent copy of a database in use, or none."""

import resource
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from heroes import create_app
from heroes.commands.files import SIGNALS, output
from heroes.extensions import db
from tests.commands import run_flask
from tests.constants import HERO, postgres_only, public, sqlite_only


def rows(path: Path) -> list[tuple[object, ...]]:
    """Return the heroes in a SQLite file; fail unless the file is sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT id, name, age, secret_name FROM hero ORDER BY id").fetchall()


@contextmanager
def writing(path: Path) -> Iterator[list[int]]:
    """Insert heroes on another connection, one per commit, by id; yield a list with the last id."""
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


class Traced:
    """A connection as OpenTelemetry and others wrap it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.wrapped = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


@sqlite_only
def test_backup_of_traced_connections(
    database_url: str, runner: FlaskCliRunner, client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/heroes/", json=HERO)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: Traced(connect(*args, **kwargs)))

    result = runner.invoke(args=["heroes", "backup", str(tmp_path / "copy.db")])
    monkeypatch.undo()

    assert result.exit_code == 0, result.stderr
    assert len(rows(tmp_path / "copy.db")) == 1


def fill(path: Path, count: int) -> None:
    """Store `count` heroes of 500 bytes each."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO hero (name, secret_name) VALUES (?, ?)", ((f"Hero {n}", "s" * 500) for n in range(count))
        )


@sqlite_only
def test_backup_under_load_is_a_snapshot(runner: FlaskCliRunner, database_url: str, tmp_path: Path) -> None:
    """It has every row from before its start and, of the later ones, none or the first ones."""
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
def test_a_backup_restores_by_copying(
    runner: FlaskCliRunner, client: FlaskClient, database_url: str, tmp_path: Path
) -> None:
    live, copy = tmp_path / "database.db", tmp_path / "copy.db"
    client.post("/heroes/", json=HERO)

    result = runner.invoke(args=["heroes", "backup", str(copy)])
    client.delete("/heroes/1")
    with client.application.app_context():
        db.engine.dispose()  # the service stops, and the last to leave removes the -wal
    assert not Path(f"{live}-wal").exists()
    shutil.copyfile(copy, live)
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url})

    assert (result.exit_code, result.stdout) == (0, "")
    assert app.test_client().get("/heroes/").json == [public()]
    assert app.test_client().post("/heroes/", json={"name": "A", "secret_name": "a"}).get_json()["id"] == 2
    with app.app_context():
        db.engine.dispose()


@sqlite_only
def test_backup_is_one_file_that_only_its_owner_can_read(runner: FlaskCliRunner, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "copy.db").write_text("the previous one")

    runner.invoke(args=["heroes", "backup", str(folder / "copy.db")])

    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    assert rows(folder / "copy.db") == []


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_leaves_no_part_of_a_file(tmp_path: Path, number: signal.Signals) -> None:
    before = {each: signal.signal(each, signal.SIG_DFL) for each in SIGNALS}
    try:
        with pytest.raises(SystemExit) as stop, output(str(tmp_path / "copy.db")):
            assert list(tmp_path.iterdir()) != []
            try:
                signal.raise_signal(number)
            finally:
                # A terminal that closes may send another one.
                signal.raise_signal(signal.SIGHUP)
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * 2
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

    assert stop.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = [signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.signal(signal.SIGHUP, signal.SIG_IGN)]
    try:
        with pytest.raises(SystemExit) as stop, output(str(tmp_path / "copy.db")):
            try:
                signal.raise_signal(signal.SIGHUP)
            finally:
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)

    assert stop.value.code == 128 + signal.SIGTERM


def test_a_file_can_be_written_in_a_thread(tmp_path: Path) -> None:
    def write() -> None:
        with output(str(tmp_path / "copy.db")) as path:
            Path(path).write_text("copy")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()

    assert (tmp_path / "copy.db").read_text() == "copy"


@sqlite_only
def test_backup_to_standard_output_is_refused(
    runner: FlaskCliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = runner.invoke(args=["heroes", "backup", "-"])

    assert (result.exit_code, "A backup is a file, not a stream." in result.stderr) == (2, True)
    assert not Path("-").exists()


@sqlite_only
@pytest.mark.parametrize("name", ["database.db", "database.db-wal", "database.db-shm", "link.db"])
@pytest.mark.parametrize("command", [["backup"], ["export", "--format", "csv"]])
def test_backup_does_not_overwrite_the_database(
    runner: FlaskCliRunner, client: FlaskClient, tmp_path: Path, name: str, command: Any
) -> None:
    client.post("/heroes/", json=HERO)
    (tmp_path / "link.db").symlink_to("database.db")

    result = runner.invoke(args=["heroes", *command, str(tmp_path / name)])

    file = (tmp_path / name).resolve()
    assert (result.exit_code, result.stderr) == (1, f"Error: {file}: Belongs to a database in use.\n")
    assert rows(tmp_path / "database.db") == [(1, "Deadpond", None, "Dive Wilson")]


@sqlite_only
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_backup_does_not_overwrite_another_database_in_use(runner: FlaskCliRunner, tmp_path: Path, mode: str) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.executescript("CREATE TABLE t (a); BEGIN; INSERT INTO t VALUES (1)")
        result = runner.invoke(args=["heroes", "backup", str(other)])

        assert (result.exit_code, result.stderr) == (1, f"Error: {other}: Belongs to a database in use.\n")


@sqlite_only
@pytest.mark.parametrize(
    ("name", "words"), [("/dev/null", "Not a regular file."), ("/nowhere/copy.db", "No such file or directory")]
)
def test_unwritable_target_is_a_one_line_error(runner: FlaskCliRunner, name: str, words: str) -> None:
    result = runner.invoke(args=["heroes", "backup", name])

    assert (result.exit_code, result.stderr) == (1, f"Error: {name}: {words}\n")
    assert Path("/dev/null").is_char_device()


@sqlite_only
def test_full_disk_keeps_the_previous_backup(database_url: str, migrated_sqlite: Path, tmp_path: Path) -> None:
    fill(tmp_path / "database.db", 2_000)
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "copy.db").write_text("the previous one")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = run_flask(database_url, "heroes", "backup", str(folder / "copy.db"), preexec_fn=limit)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(b"Error: database: ")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"copy.db": "the previous one"}


@postgres_only
def test_backup_of_postgresql_refers_to_pg_dump(runner: FlaskCliRunner, tmp_path: Path) -> None:
    result = runner.invoke(args=["heroes", "backup", str(tmp_path / "copy.db")])

    assert result.exit_code == 1
    assert "pg_dump" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "copy.db").exists()
