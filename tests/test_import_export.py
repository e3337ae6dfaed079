"""`flask heroes import` and `export`: a round trip loses nothing, an import is all or nothing, errors name the line."""

import json
import os
import pty
import re
import resource
import shlex
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from heroes import create_app
from heroes.extensions import db
from heroes.models import Hero
from tests.bulk import many, run
from tests.commands import FLASK, run_flask, start_flask
from tests.constants import HERO, ROOT, Query, as_csv, postgres_only, public, sqlite_only, stored
from tests.servers import measured

SENTINEL = "sentinel-of-a-secret"
HEROES = [
    (1, "Deadpond", None, "Dive Wilson"),
    (3, 'Comma, "quote"\r\nand line', 0, " blank "),
    (7, "Ünïcödé 🦸", -5, "=1+1"),
    (9, "", 2**63 - 1, "NaN"),
]
FORMATS = ["csv", "ndjson"]
TABLE = "SELECT id, name, age, secret_name FROM hero ORDER BY id"


def store(query: Query, *heroes: Any) -> None:
    for id, name, age, secret_name in heroes:
        texts = (text.replace("'", "''") for text in (name, secret_name))
        query(
            "INSERT INTO hero (id, name, age, secret_name) VALUES ({}, '{}', {}, '{}')".format(
                id, next(texts), "NULL" if age is None else age, next(texts)
            )
        )


@pytest.mark.parametrize("suffix", FORMATS)
def test_export_and_import_restore_the_table(runner: FlaskCliRunner, query: Query, tmp_path: Path, suffix: str) -> None:
    store(query, *HEROES)
    file = str(tmp_path / f"heroes.{suffix}")

    exported = runner.invoke(args=["heroes", "export", "--with-secrets", file])
    query("DELETE FROM hero")
    imported = runner.invoke(args=["heroes", "import", file])

    assert (exported.exit_code, exported.stdout, exported.stderr) == (0, "", "4 heroes exported\n")
    assert (imported.exit_code, imported.stdout, imported.stderr) == (0, "", "4 heroes imported\n")
    assert query(TABLE) == HEROES


# Any text that a file in UTF-8 and both databases can hold.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def app_in_memory() -> Iterator[Flask]:
    """The service on a database in memory, for all examples of a test."""
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    yield app
    with app.app_context():
        db.engine.dispose()


def delete_all(app: Flask) -> None:
    """Delete all heroes."""
    with app.app_context():
        db.session.execute(delete(Hero))
        db.session.commit()


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(text, st.none() | st.integers(-(2**63), 2**63 - 1), text), max_size=5))
def test_export_and_import_restore_any_hero(app_in_memory: Flask, suffix: str, rows: Any) -> None:
    runner, client = app_in_memory.test_cli_runner(), app_in_memory.test_client()
    delete_all(app_in_memory)
    for name, age, secret_name in rows:
        client.post("/heroes/", json={"name": name, "age": age, "secret_name": secret_name})
    export = ["heroes", "export", "--with-secrets", "--format", suffix, "-"]

    first = runner.invoke(args=export).stdout_bytes
    delete_all(app_in_memory)
    imported = runner.invoke(args=["heroes", "import", "--format", suffix, "-"], input=first)
    second = runner.invoke(args=export).stdout_bytes

    assert (imported.exit_code, imported.stderr) == (0, f"{len(rows)} heroes imported\n")
    assert first == second


def test_export_formats(runner: FlaskCliRunner, query: Query, tmp_path: Path) -> None:
    store(query, HEROES[0], HEROES[3])
    csv_file, ndjson_file = tmp_path / "heroes.csv", tmp_path / "heroes.JSONL"

    runner.invoke(args=["heroes", "export", str(csv_file)])
    runner.invoke(args=["heroes", "export", "--with-secrets", str(ndjson_file)])

    heroes = [stored(), stored(id=9, name="", age=2**63 - 1, secret_name="NaN")]
    lines = ndjson_file.read_bytes().splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == heroes
    assert lines[1].startswith(b'{"id":9,"name":"","age":9223372036854775807,')
    assert lines[1].endswith(b"}\n")
    for hero in heroes:
        del hero["secret_name"]
    assert csv_file.read_bytes() == as_csv(*heroes)


@pytest.mark.parametrize("suffix", FORMATS)
def test_secrets_are_exported_only_on_request(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, suffix: str
) -> None:
    store(query, (1, "Deadpond", None, SENTINEL))
    file = tmp_path / f"heroes.{suffix}"

    runner.invoke(args=["heroes", "export", str(file)])
    imported = runner.invoke(args=["heroes", "import", str(file)])

    assert SENTINEL not in file.read_text()
    assert imported.exit_code == 1
    assert imported.stderr.endswith(": secret_name: Field required. Nothing was imported.\n")


@sqlite_only
def test_only_its_owner_can_read_an_export(runner: FlaskCliRunner, tmp_path: Path) -> None:
    runner.invoke(args=["heroes", "export", str(tmp_path / "heroes.csv")])

    assert (tmp_path / "heroes.csv").stat().st_mode & 0o777 == 0o600
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".heroes")] == []


def test_new_heroes_get_new_ids(runner: FlaskCliRunner, client: FlaskClient, query: Query, tmp_path: Path) -> None:
    """Ids that a file brings are not given out again; a file without ids gets those that come next."""
    (tmp_path / "old.csv").write_text("id,name,secret_name\n41,A,a\n7,B,b\n")
    (tmp_path / "new.csv").write_text("\ufeffname,secret_name,age\r\nC,c,\r\n\r\nD,d, +5 ", newline="")

    assert runner.invoke(args=["heroes", "import", str(tmp_path / "old.csv")]).exit_code == 0
    assert runner.invoke(args=["heroes", "import", str(tmp_path / "new.csv")]).stderr == "2 heroes imported\n"
    created = client.post("/heroes/", json={"name": "E", "secret_name": "e"}).get_json()["id"]

    heroes = query("SELECT id, name, age FROM hero ORDER BY name")
    assert [hero[1:] for hero in heroes] == [("A", None), ("B", None), ("C", None), ("D", 5), ("E", None)]
    assert [hero[0] for hero in heroes[:2]] == [41, 7]
    assert 41 < heroes[2][0] < heroes[3][0] < created


@postgres_only
def test_an_import_without_ids_blocks_no_writer(
    database_url: str, runner: FlaskCliRunner, query: Query, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("name,secret_name\nA,a\n")
    with psycopg.connect(database_url) as writer:
        writer.execute("INSERT INTO hero (name, secret_name) VALUES ('B', 'b')")
        imported = runner.invoke(args=["heroes", "import", str(tmp_path / "new.csv")])

    assert imported.stderr == "1 heroes imported\n"
    assert query("SELECT id, name FROM hero ORDER BY id") == [(1, "B"), (2, "A")]


def test_imported_hero_has_the_defaults_of_a_new_one(
    runner: FlaskCliRunner, client: FlaskClient, tmp_path: Path
) -> None:
    (tmp_path / "heroes.csv").write_text("id,name,secret_name\n4,A,a\n")

    runner.invoke(args=["heroes", "import", str(tmp_path / "heroes.csv")])

    assert client.get("/heroes/4").json == public(name="A", id=4)
    assert client.patch("/heroes/4", json={"age": 3}).json == public(name="A", age=3, id=4)


BAD_CSV = [
    (b"6,A,12", b"2: 3 columns below a header of 4"),
    (b"6,A,x,a", b"2: age: Input should be a valid integer, unable to parse string as an integer"),
    (b"6,A,1.5,a", b"2: age: Input should be a valid integer, unable to parse string as an integer"),
    (b",A,1,a", b"2: id: Input should be a valid integer, unable to parse string as an integer"),
    (b"0,A,1,a", b"2: id: Input should be greater than or equal to 1"),
    (b"9007199254740992,A,1,a", b"2: id: Input should be less than or equal to 9007199254740991"),
    (b"5,A,1,a", b"2: id: A hero has it already"),
    (b"6,A,1,a\n6,B,2,b", b"3: id: A hero has it already"),
    (b"6,A\xe9,1,a", b"2: name: Input should be a valid string, unable to parse raw data as a unicode string"),
    (b"6,A\0,1,a", b"2: name: Value error, must not contain NUL characters"),
    (b"6," + b"A" * 501 + b",1,a", b"2: name: String should have at most 500 characters"),
    (b'6,"A,1,a', b"2: Not valid CSV, unexpected end of data"),
    (b'6,"A"x,1,a', b"2: Not valid CSV, ',' expected after '\"'"),
    (b"6," + b"A" * 2**20 + b",1,a", b"2: Longer than 1048576 characters"),
    (
        b"x,A,x,a",
        b"2: age: Input should be a valid integer, unable to parse string as an integer; id: Input should be a"
        b" valid integer, unable to parse string as an integer",
    ),
]
BAD_NDJSON = [
    (b'{"id": 6, "name": "A", "secret_name": "a"', b"2: JSON decode error"),
    (b'{"id": 6, "name": "\xe9", "secret_name": "a"}', b"2: JSON decode error"),
    (b'{"id": 6, "name": NaN, "secret_name": "a"}', b"2: JSON decode error"),
    (b'["A"]', b"2: Input should be a valid dictionary or object to extract fields from"),
    (b'"A"', b"2: Input should be a valid dictionary or object to extract fields from"),
    (b'{"id": 6, "name": null, "secret_name": "a"}', b"2: name: Input should be a valid string"),
    (b'{"id": 6, "secret_name": 5}', b"2: name: Field required; secret_name: Input should be a valid string"),
    (b'{"name": "A", "secret_name": "a"}', b"2: id: Must be in every row or in none"),
    (b'{"id": 5, "name": "A", "secret_name": "a"}', b"2: id: A hero has it already"),
    (b'"' + b"A" * 2**20 + b'"', b"2: Longer than 1048576 characters"),
    (b'"' + b"A" * 3 * 2**20 + b'"', b"2: Longer than 1048576 characters"),
]


class Bad(NamedTuple):
    """A bad row, what stands before and after it in its file, and its message."""

    suffix: str
    before: bytes
    row: bytes
    after: bytes
    message: bytes


BAD = [Bad("csv", b"id,name,age,secret_name\n", row, b"7,Z,,z\n", message) for row, message in BAD_CSV] + [
    Bad(
        "ndjson",
        b'{"id": 1, "name": "Y", "secret_name": "y"}\n',
        row,
        b'{"id": 7, "name": "Z", "secret_name": "z"}\n',
        message,
    )
    for row, message in BAD_NDJSON
]


def on_its_databases(*rows: Bad) -> pytest.MarkDecorator:
    """Return the mark that runs a test for each row; a database is asked only whether a hero has the id already."""
    cases = [(dialect, bad) for bad in rows for dialect in ("sqlite", "postgresql")]
    cases = [(dialect, bad) for dialect, bad in cases if dialect == "sqlite" or b"has it already" in bad.message]
    return pytest.mark.parametrize(("dialect", "bad"), cases, indirect=["dialect"])


@on_its_databases(*BAD)
def test_one_bad_row_imports_nothing(runner: FlaskCliRunner, query: Query, tmp_path: Path, bad: Bad) -> None:
    store(query, (5, "Old", None, "old"))
    file = tmp_path / f"heroes.{bad.suffix}"
    file.write_bytes(bad.before + bad.row)

    result = runner.invoke(args=["heroes", "import", str(file)])

    assert result.exit_code == 1
    assert result.stderr_bytes == b"Error: line " + bad.message + b". Nothing was imported.\n"
    assert query(TABLE) == [(5, "Old", None, "old")]


def loses_the_row(bad: Bad) -> bool:
    """Return whether it is unknown where the next row of CSV begins."""
    return bad.suffix == "csv" and (b"Not valid CSV" in bad.message or b"Longer" in bad.message)


@on_its_databases(*(bad for bad in BAD if not loses_the_row(bad)))
def test_bad_rows_can_be_skipped(runner: FlaskCliRunner, query: Query, tmp_path: Path, bad: Bad) -> None:
    store(query, (5, "Old", None, "old"))
    file = tmp_path / f"heroes.{bad.suffix}"
    file.write_bytes(bad.before + bad.row + b"\n" + bad.after)

    result = runner.invoke(args=["heroes", "import", "--skip-errors", str(file)])

    told, count = result.stderr_bytes.splitlines()
    assert result.exit_code == 1
    assert told == b"line " + bad.message
    assert count.endswith(b" heroes imported, 1 lines skipped")
    assert query("SELECT name FROM hero WHERE id IN (5, 7) ORDER BY id") == [("Old",), ("Z",)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('big,"first\n' + "x" * 1_100_000 + '\nlast"\n', "line 3: Longer than 1048576 characters"),
        ("x" * 1_100_000 + ',"\ninner,injected\n"\n', "line 2: Longer than 1048576 characters"),
        (
            'big,"' + "x" * 140_000 + '\ninner,injected\nlast"\n',
            "line 2: Not valid CSV, field larger than field limit (131072)",
        ),
        ('"A"x,"\ninner,injected\n"\n', "line 2: Not valid CSV, ',' expected after '\"'"),
        ('A,"first\n"x\ninner,injected\n"\n', "line 2: Not valid CSV, ',' expected after '\"'"),
        ('A,a\nB,"b\n', "line 3: Not valid CSV, unexpected end of data"),
    ],
)
@sqlite_only
def test_a_part_of_a_value_is_not_imported_as_a_row(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, rows: str, message: str
) -> None:
    (tmp_path / "heroes.csv").write_text(f"name,secret_name\n{rows}last,row\n")

    result = runner.invoke(args=["heroes", "import", "--skip-errors", str(tmp_path / "heroes.csv")])

    assert (result.exit_code, result.stderr) == (1, f"Error: {message}. Nothing was imported.\n")
    assert query(TABLE) == []


def test_ids_must_be_in_every_row_or_in_none(runner: FlaskCliRunner, query: Query, tmp_path: Path) -> None:
    (tmp_path / "heroes.ndjson").write_text(
        '{"name": "A", "secret_name": "a"}\n{"id": 3, "name": "B", "secret_name": "b"}\n'
    )

    result = runner.invoke(args=["heroes", "import", str(tmp_path / "heroes.ndjson")])

    assert result.stderr == "Error: line 2: id: Must be in every row or in none. Nothing was imported.\n"
    assert query(TABLE) == []


def test_skip_errors_without_errors(runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "heroes.csv").write_text("name,secret_name\nA,a\n")

    result = runner.invoke(args=["heroes", "import", "--skip-errors", str(tmp_path / "heroes.csv")])

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported, 0 lines skipped\n")


@pytest.mark.parametrize(
    "content",
    ["name,age,secret_name\n,,\nA,1,a\n,,\n\n,,\n", "id,name,age,secret_name\n1,A,1,a\n,,,\n\n,,,\n"],
    ids=["without ids", "with ids"],
)
@sqlite_only
def test_empty_rows_of_a_spreadsheet_are_ignored(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, content: str
) -> None:
    (tmp_path / "heroes.csv").write_text(content)

    result = runner.invoke(args=["heroes", "import", str(tmp_path / "heroes.csv")])

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported\n")
    assert query("SELECT id, name, age, secret_name FROM hero") == [(1, "A", 1, "a")]


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.csv", b"name,secret_name\n"), ("a.ndjson", b"\n")])
@sqlite_only
def test_empty_file_imports_nothing(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)

    result = runner.invoke(args=["heroes", "import", str(tmp_path / name)])

    assert (result.exit_code, result.stderr) == (0, "0 heroes imported\n")
    assert query(TABLE) == []


@pytest.mark.parametrize("header", ["name,secret_name\nA,a\n".encode("utf-16"), b'"name,secret_name\nA,a\n'])
@pytest.mark.parametrize("options", [[], ["--skip-errors"]])
@sqlite_only
def test_undecodable_or_unclosed_header_is_rejected(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, header: bytes, options: list[str]
) -> None:
    (tmp_path / "heroes.csv").write_bytes(header)

    result = runner.invoke(args=["heroes", "import", *options, str(tmp_path / "heroes.csv")])

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: line 1: ")
    assert result.stderr.count("\n") == 1
    assert query(TABLE) == []


@pytest.mark.parametrize("command", ["import", "export"])
@sqlite_only
def test_a_pipe_needs_a_format(runner: FlaskCliRunner, command: Any) -> None:
    result = runner.invoke(args=["heroes", command, "-"], input=b"")

    assert result.exit_code == 2
    assert "--format" in result.stderr


@sqlite_only
def test_missing_file_is_a_one_line_error(runner: FlaskCliRunner, tmp_path: Path) -> None:
    result = runner.invoke(args=["heroes", "import", str(tmp_path / "none.csv")])

    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'none.csv'}: No such file or directory\n")


@pytest.mark.parametrize(("target", "words"), [("/dev/full", "No space left on device"), ("", "Is a directory")])
@sqlite_only
def test_unwritable_target_is_a_one_line_error(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, target: str, words: str
) -> None:
    store(query, HEROES[0])
    target = target or str(tmp_path)

    result = runner.invoke(args=["heroes", "export", "--format", "csv", target])

    assert (result.exit_code, result.stderr) == (1, f"Error: {target}: {words}\n")


@sqlite_only
def test_missing_folder_is_a_one_line_error(runner: FlaskCliRunner, tmp_path: Path) -> None:
    file = str(tmp_path / "none" / "heroes.csv")

    result = runner.invoke(args=["heroes", "export", file])

    assert (result.exit_code, result.stderr) == (1, f"Error: {file}: No such file or directory\n")


def test_database_error_is_a_one_line_error(runner: FlaskCliRunner, query: Query, tmp_path: Path) -> None:
    """An existing file is not changed."""
    file = tmp_path / "heroes.csv"
    file.write_text("name,secret_name\nA,a\n")
    query("ALTER TABLE hero RENAME TO villain")
    try:
        results = [runner.invoke(args=["heroes", command, str(file)]) for command in ("export", "import")]
    finally:
        query("ALTER TABLE villain RENAME TO hero")

    for result in results:
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: database: ")
        assert result.stderr.count("\n") == 1
    assert file.read_text() == "name,secret_name\nA,a\n"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == ["heroes.csv"]


@sqlite_only
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("columns", [("name", "secret_name"), ("secret_name", "name")])
def test_export_of_a_blob_is_a_one_line_error(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, suffix: str, columns: tuple[str, str]
) -> None:
    """SQLite stores it in a column of any type."""
    query(f"INSERT INTO hero (id, {', '.join(columns)}) VALUES (7, CAST('{SENTINEL}' AS BLOB), '{SENTINEL}')")
    file = tmp_path / f"heroes.{suffix}"

    result = runner.invoke(args=["heroes", "export", "--with-secrets", str(file)])

    assert (result.exit_code, result.stderr) == (1, f"Error: id 7: {columns[0]} is binary data.\n")
    assert not file.exists()


@sqlite_only
@pytest.mark.parametrize("column", ["name", "secret_name"])
def test_export_of_text_that_is_not_utf_8_does_not_reveal_it(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, column: str
) -> None:
    store(query, HEROES[0])
    query(f"UPDATE hero SET {column} = CAST('{SENTINEL}' || x'ff' AS TEXT)")

    result = runner.invoke(args=["heroes", "export", "--with-secrets", str(tmp_path / "heroes.csv")])

    assert result.exit_code == 1
    assert result.stderr == f"Error: database: Could not decode to UTF-8 column '{column}'\n"


@sqlite_only
def test_stdout_has_only_the_exported_heroes(database_url: str, query: Query) -> None:
    store(query, *HEROES)

    exported = run_flask(database_url, "heroes", "export", "--with-secrets", "--format", "csv", "-")
    query("DELETE FROM hero")
    imported = run_flask(database_url, "heroes", "import", "--format", "csv", "-", input=exported.stdout)

    assert exported.returncode == imported.returncode == 0
    assert b"4 heroes exported\n" in exported.stderr
    assert b"\r" not in exported.stderr + imported.stderr  # no progress bar
    assert imported.stdout == b""
    assert query(TABLE) == HEROES


@sqlite_only
def test_reader_that_closes_the_pipe_causes_no_traceback(
    database_url: str, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 6_000))])
    command = f"{shlex.join(FLASK)} heroes export --format csv - | head -n 1"

    result = subprocess.run(
        command, shell=True, cwd=ROOT, env=os.environ | {"DATABASE_URL": database_url}, capture_output=True, timeout=60
    )

    *columns, _ = stored()
    assert result.stdout.decode() == ",".join(columns) + "\r\n"
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr


@sqlite_only
def test_import_reads_a_named_pipe(runner: FlaskCliRunner, query: Query, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ndjson"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text('{"name": "A", "secret_name": "a"}'))
    writer.start()

    result = runner.invoke(args=["heroes", "import", str(pipe)])
    writer.join()

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported\n")
    assert query("SELECT name FROM hero") == [("A",)]


def test_reader_that_closes_a_named_pipe_is_exit_code_1(runner: FlaskCliRunner, query: Query, tmp_path: Path) -> None:
    """The exit code says that not all heroes were written; there is no message."""
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 5_000))])
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: Path(pipe).open("rb").close())
    reader.start()

    result = runner.invoke(args=["heroes", "export", "--with-secrets", "--format", "ndjson", pipe])
    reader.join()

    assert (result.exit_code, result.stderr) == (1, "")


@sqlite_only
def test_a_pipe_into_a_full_disk(database_url: str, query: Query) -> None:
    store(query, HEROES[0])

    with open("/dev/full", "wb") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE, "capture_output": False}
        result = run_flask(database_url, "heroes", "export", "--format", "csv", "-", env=measured(), **pipes)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == b"Error: -: No space left on device"


@sqlite_only
@pytest.mark.parametrize(
    "command, closed", [("import", False), ("export", False), ("backup", True)], ids=["full", "full-export", "closed"]
)
def test_command_succeeds_if_its_message_can_not_be_written(
    database_url: str, query: Query, tmp_path: Path, command: str, closed: bool
) -> None:
    file = tmp_path / f"{command}.csv"
    if command == "import":
        file.write_text("name,secret_name\nDeadpond,Dive Wilson\n")

    with open("/dev/full", "wb") as full:
        pipes: dict[str, Any] = {"stdout": full, "stderr": full, "capture_output": False}
        pipes |= {"preexec_fn": lambda: os.close(2)} if closed else {}
        result = run_flask(database_url, "heroes", command, str(file), **pipes)

    assert (result.returncode, file.exists()) == (0, True)
    assert query("SELECT count(*) FROM hero") == [(int(command == "import"),)]


@sqlite_only
def test_full_disk_keeps_the_previous_export(database_url: str, runner: FlaskCliRunner, tmp_path: Path) -> None:
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 6_000))])
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "heroes.csv").write_text("the previous one")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = run_flask(database_url, "heroes", "export", str(folder / "heroes.csv"), preexec_fn=limit)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"Error: {folder / 'heroes.csv'}: File too large".encode()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"heroes.csv": "the previous one"}


def read_terminal(terminal: int) -> str:
    """Return what is shown next, or "" if no process can write any more."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""


@sqlite_only
@pytest.mark.parametrize("command", ["import", "export"])
def test_a_terminal_shows_progress(database_url: str, runner: FlaskCliRunner, tmp_path: Path, command: Any) -> None:
    file = many(tmp_path / "heroes.csv", 3_000, ids=False)
    runner.invoke(args=["heroes", "import", str(file)])
    terminal, child = pty.openpty()

    process = start_flask(database_url, "heroes", command, str(file), stdout=child, stderr=child)
    os.close(child)
    shown = "".join(iter(partial(read_terminal, terminal), ""))
    os.close(terminal)

    assert process.wait(60) == 0
    # click before 8.5 does not show the last step.
    assert re.search(r"\[#{35,36}-?\] +(99|100)%", shown)
    assert f"3000 heroes {command}ed" in shown.replace("6000", "3000")
    assert "Secret" not in shown


@sqlite_only
def test_killed_import_stores_nothing(database_url: str, query: Query, tmp_path: Path) -> None:
    """The rows are inserted in one transaction, at the end."""
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with start_flask(database_url, "heroes", "import", "--format", "ndjson", "-", **pipes) as process:
        assert process.stdin is not None
        for number in range(5_000):
            process.stdin.write(json.dumps({"name": f"Hero {number}", "secret_name": SENTINEL}).encode() + b"\n")
        process.stdin.flush()
        process.send_signal(signal.SIGKILL)

    assert query(TABLE) == []


def test_memory_does_not_grow_with_the_file(database_url: str, query: Query, tmp_path: Path) -> None:
    small = run(database_url, "import", str(many(tmp_path / "few.csv", 1_000))).memory
    query("DELETE FROM hero")
    imported = run(database_url, "import", str(many(tmp_path / "many.csv", 20_000))).memory
    exported = run(database_url, "export", str(tmp_path / "out.ndjson")).memory

    # In MB. 20,000 heroes would be 8 in Python; SQLite's cache takes 3.
    assert imported - small < 7
    assert exported - small < 4


@postgres_only
@pytest.mark.parametrize("suffix", FORMATS)
def test_heroes_move_from_sqlite_to_postgresql(
    new_app: Callable[..., Flask],
    sqlite_url: str,
    runner: FlaskCliRunner,
    query: Query,
    client: FlaskClient,
    tmp_path: Path,
    suffix: str,
) -> None:
    """The steps of docs/deploying.md."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as source:
        source.execute("INSERT INTO hero (id, name, age, secret_name) VALUES (7, 'A', 1, 'a'), (9, 'B', NULL, 'b')")
        source.commit()
    file = str(tmp_path / f"heroes.{suffix}")

    exported = new_app().test_cli_runner().invoke(args=["heroes", "export", "--with-secrets", file])
    imported = runner.invoke(args=["heroes", "import", file])

    assert (exported.exit_code, imported.exit_code) == (0, 0)
    rows = query("SELECT id, name, age, secret_name FROM hero ORDER BY id")
    assert rows == [(7, "A", 1, "a"), (9, "B", None, "b")]
    assert client.post("/heroes/", json=HERO).get_json()["id"] > 9
