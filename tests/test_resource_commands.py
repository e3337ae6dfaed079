"""The commands work for any resource: heroes.commands knows no hero."""

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner
from marshmallow import EXCLUDE, Schema, fields
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from heroes import commands
from heroes.commands import resource_commands
from heroes.extensions import db
from heroes.web.fields import Integer, String
from tests.constants import Query

# Runs `flask leagues …`.
Run = Callable[..., Result]

versions = count(100)


class Base(DeclarativeBase):
    """Apart from the tables of the service."""


class League(Base):
    __tablename__ = "league"

    id: Mapped[int] = mapped_column(primary_key=True)
    headquarters: Mapped[str]
    founded: Mapped[int | None]
    version: Mapped[int] = mapped_column(default=lambda: next(versions))


class LeaguePublic(Schema):
    headquarters = String(required=True)
    id = Integer(required=True)


class LeagueCreate(Schema):
    class Meta:
        unknown = EXCLUDE

    headquarters = String(required=True)
    founded = Integer(data_key="foundedIn", allow_none=True, load_default=None)


class Order(Base):
    """Its name is a reserved word, one of its columns is named like one that an import adds."""

    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[int]
    item: Mapped[str]
    password: Mapped[str]


class OrderCreate(Schema):
    line = Integer(required=True)
    item = String(required=True)
    password = String(required=True, load_only=True)


class OrderPublic(Schema):
    line = Integer()
    password = String(load_only=True)
    item = fields.Function(lambda row: f"{row['line']}: {row['item']}")


class OrderLabelled(OrderPublic):
    label = String(attribute="item")
    number = Integer(attribute="id")


@pytest.fixture
def leagues(app: Flask, runner: FlaskCliRunner) -> Iterator[Run]:
    app.cli.add_command(resource_commands("leagues", League, LeagueCreate, LeaguePublic))
    with app.app_context():
        Base.metadata.create_all(db.engine)
    yield lambda *args: runner.invoke(args=["leagues", *map(str, args)])
    with app.app_context():
        Base.metadata.drop_all(db.engine)


def test_another_resource_is_imported_and_exported(leagues: Run, query: Query, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,headquarters,foundedIn\n7,Sister Margaret's Bar,1991\n9,Sharp Tower,\n")

    imported = leagues("import", tmp_path / "in.csv")
    again = leagues("import", "--skip-errors", tmp_path / "in.csv")
    exported = leagues("export", tmp_path / "out.csv")

    assert imported.stderr == "2 leagues imported\n"
    assert again.stderr.splitlines() == [
        "line 2: id: A league has it already",
        "line 3: id: A league has it already",
        "0 leagues imported, 2 lines skipped",
    ]
    assert exported.stderr == "2 leagues exported\n"
    assert (tmp_path / "out.csv").read_text().split() == [
        "id,headquarters",
        "7,Sister",
        "Margaret's",
        "Bar",
        "9,Sharp",
        "Tower",
    ]
    assert query("SELECT founded FROM league ORDER BY id") == [(1991,), (None,)]


def test_an_export_has_what_a_response_has(app: Flask, leagues: Run, runner: FlaskCliRunner, tmp_path: Path) -> None:
    app.cli.add_command(resource_commands("orders", Order, OrderCreate, OrderPublic))
    (tmp_path / "in.ndjson").write_text('{"line": 3, "item": "Shield", "password": "x"}')

    imported = runner.invoke(args=["orders", "import", str(tmp_path / "in.ndjson")])
    exported = runner.invoke(args=["orders", "export", "--format", "csv", "-"])
    secrets = runner.invoke(args=["orders", "export", "--format", "csv", "--with-secrets", "-"])

    assert imported.stderr == "1 orders imported\n"
    assert exported.stdout == "id,line,item\n1,3,3: Shield\n"
    assert secrets.stdout == "id,line,item,password\n1,3,Shield,x\n"


def test_an_export_with_a_second_name_of_a_column_can_be_imported(
    app: Flask, leagues: Run, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    app.cli.add_command(resource_commands("orders", Order, OrderCreate, OrderLabelled))
    (tmp_path / "in.ndjson").write_text('{"line": 3, "item": "Shield", "password": "x"}')
    runner.invoke(args=["orders", "import", str(tmp_path / "in.ndjson")])

    exported = runner.invoke(args=["orders", "export", "--format", "csv", "--with-secrets", "-"])

    assert exported.stdout == "id,line,item,password\n1,3,Shield,x\n"


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_an_export_of_fields_with_a_data_key_can_be_imported(
    leagues: Run, query: Query, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "in.csv").write_text("headquarters,foundedIn\nA,1991\nB,\n")
    leagues("import", tmp_path / "in.csv")

    exported = leagues("export", "--with-secrets", tmp_path / f"out.{suffix}")
    query("DELETE FROM league")
    imported = leagues("import", tmp_path / f"out.{suffix}")

    assert (exported.stderr, imported.stderr) == ("2 leagues exported\n", "2 leagues imported\n")
    assert query("SELECT id, headquarters, founded FROM league ORDER BY id") == [(1, "A", 1991), (2, "B", None)]


def test_an_imported_row_gets_the_defaults_of_other_columns(leagues: Run, query: Query, tmp_path: Path) -> None:
    """A random first version, for instance: the row under a deleted id must not have its predecessor's ETag."""
    (tmp_path / "in.ndjson").write_text('{"id": 7, "headquarters": "A"}')

    leagues("import", tmp_path / "in.ndjson")
    first = query("SELECT version FROM league")
    query("DELETE FROM league")
    leagues("import", tmp_path / "in.ndjson")

    assert first[0][0] >= 100
    assert query("SELECT version FROM league") not in ([], first)


def test_export_has_the_id_and_what_the_fields_dump(app: Flask, runner: FlaskCliRunner, leagues: Run) -> None:
    class Shouted(String):
        def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str:
            return str(value).upper()

    class Loud(Schema):
        headquarters = Shouted()

    app.cli.add_command(resource_commands("loud", League, LeagueCreate, Loud))
    with app.app_context():
        db.session.add(League(headquarters="Bar"))
        db.session.commit()

    assert runner.invoke(args=["loud", "export", "--format", "csv", "-"]).stdout.split() == ["id,headquarters", "1,BAR"]


def test_failed_import_does_not_reveal_the_row(leagues: Run, query: Query, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("headquarters\nsentinel-of-a-secret\n")
    query("CREATE UNIQUE INDEX only_one ON league (headquarters)")
    leagues("import", tmp_path / "in.csv")

    result = leagues("import", tmp_path / "in.csv")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: database: ")
    assert result.stderr.count("\n") == 1
    assert "sentinel" not in result.stderr
    assert query("SELECT count(*) FROM league") == [(1,)]


def test_help_names_the_resource(leagues: Run) -> None:
    assert "Import, export and back up leagues." in leagues("--help").stdout


def test_commands_do_not_mention_heroes() -> None:
    code = "\n".join(path.read_text() for path in Path(commands.__file__).parent.glob("*.py"))

    assert re.findall(r"(?i)(?<!from )\bhero(?:es)?\b(?!\.)", code) == []


def test_row_that_is_nested_too_deep_is_reported_with_its_line(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    class Tree(Schema):
        headquarters = fields.Nested(lambda: Tree())

    app.cli.add_command(resource_commands("trees", League, Tree, LeaguePublic))
    (tmp_path / "a.ndjson").write_text('{"headquarters":' * 200 + "{}" + "}" * 200)

    result = runner.invoke(args=["trees", "import", str(tmp_path / "a.ndjson")])
    assert result.stderr == "Error: line 1: Value error, Nested too deep. Nothing was imported.\n"
