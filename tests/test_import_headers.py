"""An import ignores no column silently: CSV headers, and the keys of NDJSON."""

from pathlib import Path

import pytest
from click.testing import Result
from flask.testing import FlaskClient, FlaskCliRunner

from tests.constants import Query, public, sqlite_only, stored

SENTINEL = "sentinel-of-a-secret"
_, *COLUMNS = stored()
KNOWN = ", ".join([*COLUMNS, "id"])
TABLE = "SELECT name, age FROM hero ORDER BY id"


def import_bytes(runner: FlaskCliRunner, tmp_path: Path, content: bytes, suffix: str = "csv", *options: str) -> Result:
    file = tmp_path / f"heroes.{suffix}"
    file.write_bytes(content)
    return runner.invoke(args=["heroes", "import", *options, str(file)])


@pytest.mark.parametrize(
    "header",
    [
        b"name,age,secret_name",
        b" name\t,age ,  secret_name",
        b"\xef\xbb\xbfname,age,secret_name",
        b'\xef\xbb\xbf"name","age","secret_name"',
        b'" name","age ","secret_name"',
        "\u00a0name,age\u00a0,secret_name".encode(),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@sqlite_only
def test_header_is_read_without_surrounding_blanks(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, header: bytes, newline: bytes
) -> None:
    result = import_bytes(runner, tmp_path, newline.join([header, b"A,5,a", b"B,,b", b""]))

    assert (result.exit_code, result.stderr) == (0, "2 heroes imported\n")
    assert query(TABLE) == [("A", 5), ("B", None)]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("name,secret_name,Age", "Unknown column 'Age'"),
        ("Name,Age,Secret_Name", "Unknown column 'Name'"),
        ("name,secret_name,ages", "Unknown column 'ages'"),
        ("name,secret_name,a ge", "Unknown column 'a ge'"),
        ("name,secret_name,", "Unknown column ''"),
        ("name,,secret_name", "Unknown column ''"),
        ("name,secret_name,\ufeffage", "Unknown column '\\ufeffage'"),
        ("name,secret_name,a\x1b[2Jge", "Unknown column 'a\\x1b[2Jge'"),
        ("name,secret_name,Größe", "Unknown column 'Größe'"),
        ("name,secret_name," + "x" * 10_000, f"Unknown column '{'x' * 40}'"),
        ("name,secret_name,version", "Unknown column 'version'"),
        ("name,age,secret_name,age", "Column 'age' comes more than once"),
        ("name,age,secret_name, age", "Column 'age' comes more than once"),
        ("id,name,secret_name,id", "Column 'id' comes more than once"),
        ("name;age;secret_name", "Separated by semicolons instead of commas"),
        ('"name";"age";"secret_name"', "Not valid CSV, ',' expected after '\"'"),
        ("name\tage\tsecret_name", "Separated by tabs instead of commas"),
        ("sep=,\nname,age,secret_name", "'sep=' instead of a header"),
        ("SEP=;\nname;age;secret_name", "'sep=' instead of a header"),
        ("\nname,age,secret_name", "Blank instead of a header"),
        (" , ,\nname,age,secret_name", "Blank instead of a header"),
        ("\r\n\r\nname,age,secret_name", "Blank instead of a header"),
        ("A,5,a", "Not a header"),
    ],
)
@sqlite_only
def test_header_with_other_columns_is_refused(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, header: str, problem: str
) -> None:
    columns = "" if problem.startswith("Not valid CSV") else f". The columns are {KNOWN}"

    for options in ([], ["--skip-errors"]):
        result = import_bytes(runner, tmp_path, f"{header}\nA,5,a,6\n".encode(), "csv", *options)
        assert (result.exit_code, result.stderr) == (1, f"Error: line 1: {problem}{columns}. Nothing was imported.\n")
        assert query(TABLE) == []


@sqlite_only
def test_header_in_latin_1_is_refused(runner: FlaskCliRunner, tmp_path: Path) -> None:
    result = import_bytes(runner, tmp_path, "name,secret_name,größe\nA,a,5\n".encode("latin-1"))

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: line 1: Unknown column 'gr\\udcf6\\udcdfe'. The columns are ")


@sqlite_only
@pytest.mark.parametrize("row", [f"A,5,{SENTINEL}", f"{SENTINEL},5,A", f"A;{SENTINEL};5", f"A\t{SENTINEL}"])
def test_missing_header_does_not_reveal_the_first_row(runner: FlaskCliRunner, tmp_path: Path, row: str) -> None:
    result = import_bytes(runner, tmp_path, f"{row}\n{row}\n".encode())

    assert result.exit_code == 1
    assert SENTINEL not in result.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("suffix", "content"), [("csv", "name,secret_name\nA,a\n"), ("ndjson", '{"name": "A", "secret_name": "a"}\n')]
)
@sqlite_only
def test_utf_16_is_refused(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, encoding: str, suffix: str, content: str
) -> None:
    message = "Error: line 1: Not a text file in UTF-8; it may be UTF-16. Nothing was imported.\n"

    for options in ([], ["--skip-errors"]):
        result = import_bytes(runner, tmp_path, content.encode(encoding), suffix, *options)
        assert (result.exit_code, result.stderr) == (1, message)
        assert query(TABLE) == []


@sqlite_only
@pytest.mark.parametrize("content", [b"name,age,secret_name", b"id,name,age\r\n", b"\xef\xbb\xbf", b"age\n\n\n"])
def test_header_without_rows_imports_nothing(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, content: bytes
) -> None:
    result = import_bytes(runner, tmp_path, content)

    assert (result.exit_code, result.stderr) == (0, "0 heroes imported\n")
    assert query(TABLE) == []


@pytest.mark.parametrize("options", [[], ["--with-secrets"]])
def test_header_of_an_export_is_accepted(
    runner: FlaskCliRunner, client: FlaskClient, tmp_path: Path, options: list[str]
) -> None:
    client.post("/heroes/", json={"name": "A", "age": 5, "secret_name": SENTINEL})
    file = str(tmp_path / "heroes.csv")

    runner.invoke(args=["heroes", "export", *options, file])
    client.delete("/heroes/1")
    result = runner.invoke(args=["heroes", "import", file])

    if options:
        assert (result.exit_code, result.stderr) == (0, "1 heroes imported\n")
        assert client.get("/heroes/").json == [public(name="A", age=5)]
    else:
        assert result.stderr == "Error: line 2: secret_name: Field required. Nothing was imported.\n"


@sqlite_only
@pytest.mark.parametrize("key", ["Age", "AGE", " age", "age ", "\\tage", "ID", "Secret_Name"])
def test_ndjson_key_that_differs_in_case_or_blanks_is_refused(
    runner: FlaskCliRunner, query: Query, tmp_path: Path, key: str
) -> None:
    row = f'{{"name": "A", "secret_name": "a", "{key}": 5}}\n'

    refused = import_bytes(runner, tmp_path, row.encode(), "ndjson")
    skipped = import_bytes(runner, tmp_path, row.encode(), "ndjson", "--skip-errors")

    problem = f"line 1: Unknown key '{key}'; known are {KNOWN}"
    assert (refused.exit_code, refused.stderr) == (1, f"Error: {problem}. Nothing was imported.\n")
    assert (skipped.exit_code, skipped.stderr) == (1, f"{problem}\n0 heroes imported, 1 lines skipped\n")
    assert query(TABLE) == []


def test_other_ndjson_keys_are_ignored_as_in_a_post(
    runner: FlaskCliRunner, client: FlaskClient, query: Query, tmp_path: Path
) -> None:
    row = b'{"name": "A", "secret_name": "a", "age": 5, "team": "x", "": 1}'

    result = import_bytes(runner, tmp_path, b"\xef\xbb\xbf" + row, "ndjson")
    client.post("/heroes/", data=row, content_type="application/json")

    assert (result.exit_code, result.stderr) == (0, "1 heroes imported\n")
    assert query(TABLE) == [("A", 5), ("A", 5)]


@sqlite_only
def test_line_numbers_count_blank_lines_and_lines_in_values(runner: FlaskCliRunner, tmp_path: Path) -> None:
    result = import_bytes(runner, tmp_path, b'name,age,secret_name\r\n"A\r\nA",5,a\r\n\r\nB,x,b\r\n')

    assert result.stderr.startswith("Error: line 5: age: ")
