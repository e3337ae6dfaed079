"""`flask heroes import` and `export`: what goes out comes in again, whole or not at all, and says what was wrong."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heroes import create_app
from heroes.extensions import db
from tests.bulk import many, run
from tests.conftest import ROOT

SENTINEL = "sentinel-of-a-secret"
HEROES = [
    (1, "Deadpond", None, "Dive Wilson"),
    (3, 'Comma, "quote"\r\nand line', 0, " blank "),
    (7, "Ünïcödé 🦸", -5, "=1+1"),
    (9, "", 2**63 - 1, "NaN"),
]
FORMATS = ["csv", "ndjson"]
TABLE = "SELECT id, name, age, secret_name FROM hero ORDER BY id"


def store(query, *heroes) -> None:
    for id, name, age, secret_name in heroes:
        texts = (text.replace("'", "''") for text in (name, secret_name))
        query(
            "INSERT INTO hero (id, name, age, secret_name) VALUES ({}, '{}', {}, '{}')".format(
                id, next(texts), "NULL" if age is None else age, next(texts)
            )
        )


def flask(database_url: str, *args: str, **kwargs) -> subprocess.CompletedProcess:
    """Runs `flask --app wsgi heroes …` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "heroes", *args],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        timeout=60,
        **{"capture_output": True} | kwargs,
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_import_of_an_export_is_the_same_table(runner, query, tmp_path, suffix):
    store(query, *HEROES)
    file = str(tmp_path / f"heroes.{suffix}")

    exported = runner.invoke(args=["heroes", "export", "--with-secrets", file])
    query("DELETE FROM hero")
    imported = runner.invoke(args=["heroes", "import", file])

    assert (exported.exit_code, exported.stdout, exported.stderr) == (0, "", "4 heroes exported\n")
    assert (imported.exit_code, imported.stdout, imported.stderr) == (0, "", "4 heroes imported\n")
    assert query(TABLE) == HEROES


# What every text file and both databases can hold.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(text, st.none() | st.integers(-(2**63), 2**63 - 1), text), max_size=5))
def test_any_hero_survives_the_journey(suffix, rows):
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    runner, client = app.test_cli_runner(), app.test_client()
    for name, age, secret_name in rows:
        client.post("/heroes/", json={"name": name, "age": age, "secret_name": secret_name})
    export = ["heroes", "export", "--with-secrets", "--format", suffix, "-"]

    first = runner.invoke(args=export).stdout_bytes
    for hero in client.get("/heroes/").json:
        client.delete(f"/heroes/{hero['id']}")
    imported = runner.invoke(args=["heroes", "import", "--format", suffix, "-"], input=first)
    second = runner.invoke(args=export).stdout_bytes
    with app.app_context():
        db.engine.dispose()

    assert (imported.exit_code, imported.stderr) == (0, f"{len(rows)} heroes imported\n")
    assert first == second


def test_the_formats(runner, query, tmp_path):
    store(query, HEROES[0], HEROES[3])
    csv_file, ndjson_file = tmp_path / "heroes.csv", tmp_path / "heroes.JSONL"

    runner.invoke(args=["heroes", "export", str(csv_file)])
    runner.invoke(args=["heroes", "export", "--with-secrets", str(ndjson_file)])

    assert csv_file.read_bytes() == f"id,name,age\r\n1,Deadpond,\r\n9,,{2**63 - 1}\r\n".encode()
    assert ndjson_file.read_bytes().splitlines(keepends=True) == [
        b'{"id":1,"name":"Deadpond","age":null,"secret_name":"Dive Wilson"}\n',
        b'{"id":9,"name":"","age":9223372036854775807,"secret_name":"NaN"}\n',
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_secrets_stay_unless_asked_for(runner, query, tmp_path, suffix):
    store(query, (1, "Deadpond", None, SENTINEL))
    file = tmp_path / f"heroes.{suffix}"

    runner.invoke(args=["heroes", "export", str(file)])
    imported = runner.invoke(args=["heroes", "import", str(file)])

    assert SENTINEL not in file.read_text()
    assert imported.exit_code == 1
    assert imported.stderr.endswith(": secret_name: Field required. Nothing was imported.\n")


def test_an_export_is_its_owners_alone(runner, tmp_path):
    runner.invoke(args=["heroes", "export", str(tmp_path / "heroes.csv")])

    assert (tmp_path / "heroes.csv").stat().st_mode & 0o777 == 0o600
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".heroes")] == []


def test_new_heroes_get_new_ids(runner, client, query, tmp_path):
    """Ids that a file brings are not given out again; a file without ids gets those that come next."""
    (tmp_path / "old.csv").write_text("id,name,secret_name\n41,A,a\n7,B,b\n")
    (tmp_path / "new.csv").write_text("\ufeffname,secret_name,age,team\r\nC,c,,x\r\n\r\nD,d, +5 ,y", newline="")

    assert runner.invoke(args=["heroes", "import", str(tmp_path / "old.csv")]).exit_code == 0
    assert runner.invoke(args=["heroes", "import", str(tmp_path / "new.csv")]).stderr == "2 heroes imported\n"
    created = client.post("/heroes/", json={"name": "E", "secret_name": "e"}).json["id"]

    heroes = query("SELECT id, name, age FROM hero ORDER BY name")
    assert [hero[1:] for hero in heroes] == [("A", None), ("B", None), ("C", None), ("D", 5), ("E", None)]
    assert [hero[0] for hero in heroes[:2]] == [41, 7]
    assert 41 < heroes[2][0] < heroes[3][0] < created


def test_a_hero_is_imported_with_what_a_new_one_has(runner, client, tmp_path):
    (tmp_path / "heroes.csv").write_text("id,name,secret_name\n4,A,a\n")

    runner.invoke(args=["heroes", "import", str(tmp_path / "heroes.csv")])

    assert client.get("/heroes/4").json == {"name": "A", "age": None, "id": 4}
    assert client.patch("/heroes/4", json={"age": 3}).json == {"name": "A", "age": 3, "id": 4}


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
    (b"6," + b"A" * 2**20 + b",1,a", b"2: Longer than 1048576 bytes"),
    (b"6," + b"A" * 3 * 2**20 + b",1,a\n", b"2: Longer than 1048576 bytes"),
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
]
BAD = [("csv", b"id,name,age,secret_name\n", row, b"7,Z,,z\n", message) for row, message in BAD_CSV] + [
    (
        "ndjson",
        b'{"id": 1, "name": "Y", "secret_name": "y"}\n',
        row,
        b'{"id": 7, "name": "Z", "secret_name": "z"}\n',
        message,
    )
    for row, message in BAD_NDJSON
]


@pytest.mark.parametrize(("suffix", "before", "row", "after", "message"), BAD)
def test_one_bad_row_and_nothing_is_imported(runner, query, tmp_path, suffix, before, row, after, message):
    store(query, (5, "Old", None, "old"))
    file = tmp_path / f"heroes.{suffix}"
    file.write_bytes(before + row)

    result = runner.invoke(args=["heroes", "import", str(file)])

    assert result.exit_code == 1
    assert result.stderr_bytes == b"Error: line " + message + b". Nothing was imported.\n"
    assert query(TABLE) == [(5, "Old", None, "old")]


@pytest.mark.parametrize(
    ("suffix", "before", "row", "after", "message"), [case for case in BAD if b"end of data" not in case[-1]]
)
def test_bad_rows_can_be_skipped(runner, query, tmp_path, suffix, before, row, after, message):
    store(query, (5, "Old", None, "old"))
    file = tmp_path / f"heroes.{suffix}"
    file.write_bytes(before + row + b"\n" + after)

    result = runner.invoke(args=["heroes", "import", "--skip-errors", str(file)])

    told, count = result.stderr_bytes.splitlines()
    assert result.exit_code == 1
    assert told == b"line " + message
    assert count.endswith(b" heroes imported, 1 lines skipped")
    assert query("SELECT name FROM hero WHERE id IN (5, 7) ORDER BY id") == [("Old",), ("Z",)]


def test_an_id_that_is_new_in_the_middle_of_the_file_is_a_fault(runner, query, tmp_path):
    (tmp_path / "heroes.ndjson").write_text(
        '{"name": "A", "secret_name": "a"}\n{"id": 3, "name": "B", "secret_name": "b"}\n'
    )

    result = runner.invoke(args=["heroes", "import", str(tmp_path / "heroes.ndjson")])

    assert result.stderr == "Error: line 2: id: Must be in every row or in none. Nothing was imported.\n"
    assert query(TABLE) == []


def test_skipping_where_nothing_is_wrong(runner, tmp_path):
    (tmp_path / "heroes.csv").write_text("name,secret_name\nA,a\n")

    result = runner.invoke(args=["heroes", "import", "--skip-errors", str(tmp_path / "heroes.csv")])

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported, 0 lines skipped\n")


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.csv", b"name,secret_name\n"), ("a.ndjson", b"\n")])
def test_an_empty_file(runner, query, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    result = runner.invoke(args=["heroes", "import", str(tmp_path / name)])

    assert (result.exit_code, result.stderr) == (0, "0 heroes imported\n")
    assert query(TABLE) == []


@pytest.mark.parametrize("header", ["name,secret_name\nA,a\n".encode("utf-16"), b'"name,secret_name\nA,a\n'])
@pytest.mark.parametrize("options", [[], ["--skip-errors"]])
def test_a_header_that_is_none(runner, query, tmp_path, header, options):
    (tmp_path / "heroes.csv").write_bytes(header)

    result = runner.invoke(args=["heroes", "import", *options, str(tmp_path / "heroes.csv")])

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: line 1: ")
    assert result.stderr.count("\n") == 1
    assert query(TABLE) == []


@pytest.mark.parametrize("command", ["import", "export"])
def test_a_pipe_needs_a_format(runner, command):
    result = runner.invoke(args=["heroes", command, "-"], input=b"")

    assert result.exit_code == 2
    assert "--format" in result.stderr


def test_no_such_file(runner, tmp_path):
    result = runner.invoke(args=["heroes", "import", str(tmp_path / "none.csv")])

    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'none.csv'}: No such file or directory\n")


@pytest.mark.parametrize(("target", "words"), [("/dev/full", "No space left on device"), ("", "Is a directory")])
def test_a_target_that_takes_nothing(runner, query, tmp_path, target, words):
    store(query, HEROES[0])
    target = target or str(tmp_path)

    result = runner.invoke(args=["heroes", "export", "--format", "csv", target])

    assert (result.exit_code, result.stderr) == (1, f"Error: {target}: {words}\n")


def test_a_folder_that_is_not_there(runner, tmp_path):
    file = str(tmp_path / "none" / "heroes.csv")

    result = runner.invoke(args=["heroes", "export", file])

    assert (result.exit_code, result.stderr) == (1, f"Error: {file}: No such file or directory\n")


def test_a_database_that_fails_is_told_in_a_line(runner, query, tmp_path):
    """A file of before stays as it is."""
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


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_pipe_carries_heroes_and_nothing_else(database_url, query, suffix):
    store(query, *HEROES)

    exported = flask(database_url, "export", "--with-secrets", "--format", suffix, "-")
    query("DELETE FROM hero")
    imported = flask(database_url, "import", "--format", suffix, "-", input=exported.stdout)

    assert exported.returncode == imported.returncode == 0
    assert b"4 heroes exported\n" in exported.stderr
    assert b"\r" not in exported.stderr + imported.stderr  # no progress bar
    assert imported.stdout == b""
    assert query(TABLE) == HEROES


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_reader_that_has_enough(database_url, runner, tmp_path):
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 20_000))])
    command = f"{sys.executable} -m flask --app wsgi heroes export --format csv - | head -n 1"

    result = subprocess.run(
        command, shell=True, cwd=ROOT, env=os.environ | {"DATABASE_URL": database_url}, capture_output=True, timeout=60
    )

    assert result.stdout == b"id,name,age\r\n"
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr


def test_a_named_pipe(runner, query, tmp_path):
    pipe = tmp_path / "pipe.ndjson"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text('{"name": "A", "secret_name": "a"}'))
    writer.start()

    result = runner.invoke(args=["heroes", "import", str(pipe)])
    writer.join()

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported\n")
    assert query("SELECT name FROM hero") == [("A",)]


def test_a_named_pipe_whose_reader_leaves(runner, query, tmp_path):
    """That is no fault to tell, but the rest of the heroes went nowhere."""
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 5_000))])
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: Path(pipe).open("rb").close())
    reader.start()

    result = runner.invoke(args=["heroes", "export", "--with-secrets", "--format", "ndjson", pipe])
    reader.join()

    assert (result.exit_code, result.stderr) == (1, "")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_pipe_into_a_full_disk(database_url, query):
    store(query, HEROES[0])

    with open("/dev/full", "wb") as full:
        result = flask(
            database_url, "export", "--format", "csv", "-", stdout=full, stderr=subprocess.PIPE, capture_output=False
        )

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == b"Error: -: No space left on device"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_disk_that_fills_up_leaves_the_file_of_before(database_url, runner, tmp_path):
    runner.invoke(args=["heroes", "import", str(many(tmp_path / "heroes.csv", 20_000))])
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "heroes.csv").write_text("of before")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = flask(database_url, "export", str(folder / "heroes.csv"), preexec_fn=limit)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"Error: {folder / 'heroes.csv'}: File too large".encode()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"heroes.csv": "of before"}


def read_terminal(terminal: int) -> str:
    """What is shown next; nothing when the last that could write has gone."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", ["import", "export"])
def test_a_terminal_shows_progress(database_url, runner, tmp_path, command):
    file = many(tmp_path / "heroes.csv", 3_000, ids=False)
    runner.invoke(args=["heroes", "import", str(file)])
    terminal, child = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", "heroes", command, str(file)],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        stdout=child,
        stderr=child,
    )
    os.close(child)
    shown = "".join(iter(partial(read_terminal, terminal), ""))
    os.close(terminal)

    assert process.wait(60) == 0
    assert "[####################################]  100%" in shown
    assert f"3000 heroes {command}ed" in shown.replace("6000", "3000")
    assert "Secret" not in shown


def test_a_killed_import_has_stored_nothing(database_url, query, tmp_path):
    """Its rows become heroes all at once, at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", "heroes", "import", "--format", "ndjson", "-"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        for number in range(5_000):
            process.stdin.write(json.dumps({"name": f"Hero {number}", "secret_name": SENTINEL}).encode() + b"\n")
        process.stdin.flush()
        process.send_signal(signal.SIGKILL)

    assert query(TABLE) == []


def test_memory_does_not_grow_with_the_file(database_url: str, query: Callable, tmp_path: Path) -> None:
    def peaks(count: int) -> tuple[int, int]:
        query("DELETE FROM hero")
        brought = run(database_url, "import", str(many(tmp_path / "heroes.csv", count)))
        return brought.memory, run(database_url, "export", str(tmp_path / "out.ndjson")).memory

    small, large = peaks(2_000), peaks(100_000)

    # In MB. 100,000 heroes would be 40 in Python; SQLite's cache may take 16.
    assert large[0] - small[0] < 20
    assert large[1] - small[1] < 4
