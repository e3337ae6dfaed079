"""flask heroes …: heroes in and out as CSV or NDJSON, and a backup. They say what they did on stderr."""

import csv
import io
import operator
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import click
import orjson
from flask.cli import AppGroup
from marshmallow import ValidationError
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, func, insert, or_, select
from sqlalchemy.exc import DBAPIError

from heroes.config import MAX_BODY
from heroes.database import turn
from heroes.extensions import db
from heroes.fields import Int, fault
from heroes.models import Hero
from heroes.schemas import HeroCreate, HeroPublic

HERO = cast(Table, Hero.__table__)
STREAM = {"yield_per": 1000}  # rows of a result that are held at a time
PAGES = 1000  # of a SQLite file that a backup copies at a time
MAX_LINE = MAX_BODY  # bytes, as for the body of a request
MAX_ID = 2**53 - 1  # what every JSON client reads exactly; a sequence that starts again from 2**63 - 1 could go nowhere

# A transaction of one moment. Others may be waited for as long as they take, and a pipe.
BEGIN = {
    "sqlite": ["BEGIN"],
    "postgresql": ["BEGIN", "SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0"],
}

Row = dict[str, Any]
Values = Sequence[Any]


class HeroRow(HeroCreate):
    """A hero of an export, who keeps the id."""

    id = Int(required=True, ge=1, le=MAX_ID)


commands = AppGroup("heroes", help="Import, export and back up the heroes.")


def say(message: str) -> None:
    """One line on stderr: stdout is for heroes."""
    click.echo(message, err=True)


@dataclass
class Faults:
    """The lines that can't be imported: the first ends the import, unless they are to be skipped."""

    skip: bool
    count: int = 0

    def add(self, line: int, message: str) -> None:
        """Reports what is wrong with a line, in words that don't repeat what it says. Raises ClickException."""
        if not self.skip:
            raise click.ClickException(f"line {line}: {message}. Nothing was imported.")
        say(f"line {line}: {message}")
        self.count += 1


@contextmanager
def told_in_a_line(file: str) -> Iterator[None]:
    """Makes a ClickException of what goes wrong with the file and the database."""
    dbapi = db.engine.dialect.loaded_dbapi
    try:
        yield
    except BrokenPipeError:
        # Whoever reads has enough. Click ends without a word.
        raise
    except OSError as error:
        # What is still buffered can't be written either: without this Python would try, and complain, at its end.
        sys.stdout = io.StringIO()
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except (DBAPIError, dbapi.Error) as error:
        # The first line: what PostgreSQL says in those that follow may quote the row.
        raise click.ClickException(f"database: {getattr(error, 'orig', error)}".partition("\n")[0]) from error


@contextmanager
def begun() -> Iterator[Connection]:
    """A connection in a transaction, which may take its time and ends undone, unless it is committed."""
    with db.engine.connect() as connection:
        for statement in BEGIN[connection.dialect.name]:
            connection.exec_driver_sql(statement)
        yield connection


def progress(length: int | None) -> Any:
    """A progress bar on stderr, if that is a terminal and the length is known."""
    file = sys.stderr if length and sys.stderr.isatty() else io.StringIO()
    return click.progressbar(length=length or 1, file=file, update_min_steps=max((length or 1) // 200, 1))


@contextmanager
def written(path: str) -> Iterator[str]:
    """The name of a new file that becomes `path` when all went well; whoever reads `path` finds it whole or not at all.

    It holds secrets, so it is its owner's. Raises ClickException where `path` belongs to a database in use.
    """
    path = os.path.realpath(path)
    live = str(db.engine.url.database)
    if path in (os.path.realpath(f"{live}{suffix}") for suffix in ("", "-wal", "-shm")):
        raise click.ClickException(f"{path}: That is the database itself.")
    if os.path.exists(f"{path}-wal"):
        raise click.ClickException(f"{path}: A database in use, {path}-wal belongs to it.")
    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        yield temporary
        os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# --- Formats ---------------------------------------------------------------------------------------------------------


def read_lines(file: IO[bytes], faults: Faults, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The lines of a file, the first without a byte order mark; an empty one instead of one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        advance(len(line))
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                advance(len(rest))
            faults.add(number, f"Longer than {MAX_LINE} bytes")
            line = b"\n"
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def read_ndjson(lines: Iterator[bytes], faults: Faults) -> Iterator[tuple[int, Row]]:
    """The objects of a file that has one on each line, with the numbers of their lines."""
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            faults.add(number, fault("json_invalid")["msg"])
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            faults.add(number, fault("model_attributes_type")["msg"])


def read_csv(lines: Iterator[bytes], faults: Faults) -> Iterator[tuple[int, Row]]:
    """The rows below a header, with the numbers of their lines. An empty age is unknown, an empty name is empty."""
    # What is not UTF-8 becomes lone surrogates, which the schema refuses.
    reader = csv.reader((line.decode(errors="surrogateescape") for line in lines), strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise click.ClickException(f"line 1: {error}. Nothing was imported.") from error
    if not "".join(header).isprintable():
        raise click.ClickException("line 1: Not a header in UTF-8. Nothing was imported.")
    nullable = [name for name, field in HeroRow().fields.items() if field.allow_none and name in header]
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(number, f"Not valid CSV, {error}")
            continue
        if len(record) == len(header):
            row: Row = dict(zip(header, record, strict=True))
            for name in nullable:
                row[name] = row[name] or None
            yield number, row
        elif record:
            faults.add(number, f"{len(record)} columns below a header of {len(header)}")


def write_ndjson(file: IO[bytes], names: Sequence[str]) -> Callable[[Sequence[Values]], None]:
    """A function that writes rows as objects, each on a line of its own."""

    def write(rows: Sequence[Values]) -> None:
        for row in rows:
            file.write(orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE))

    return write


def write_csv(file: IO[bytes], names: Sequence[str]) -> Callable[[Sequence[Values]], None]:
    """A function that writes rows below a header (RFC 4180)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)

    def write(rows: Sequence[Values]) -> None:
        writer.writerows(rows)
        file.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()

    write([names])
    return write


READERS = {"csv": read_csv, "ndjson": read_ndjson}
WRITERS = {"csv": write_csv, "ndjson": write_ndjson}
SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}

FORMAT = click.option("--format", "form", type=click.Choice(list(READERS)), help="Otherwise as FILE's suffix says.")


def format_of(name: str, form: str | None) -> str:
    """The format that was asked for, or the suffix' own. Raises UsageError where there is neither."""
    if form is None and (form := SUFFIXES.get(Path(name).suffix.lower())) is None:
        raise click.UsageError("--format csv or --format ndjson is needed: the name of the file doesn't tell.")
    return form


# --- Import ----------------------------------------------------------------------------------------------------------


def validated(rows: Iterator[tuple[int, Row]], schema: HeroCreate, faults: Faults) -> Iterator[Values]:
    """The line number and the values of each row that the schema takes, in the order of its fields."""
    values = operator.itemgetter(*schema.fields)
    keeps_ids = "id" in schema.fields
    for line, row in rows:
        if ("id" in row) is not keeps_ids:
            faults.add(line, "id: Must be in every row or in none")
            continue
        try:
            hero = schema.load(row)
        except ValidationError as error:
            faults.add(line, "; ".join(f"{name}: {fault['msg']}" for name, fault in error.messages_dict.items()))
            continue
        yield (line, *values(hero))


def stage_sqlite(connection: Connection, staged: Table, rows: Iterator[Values]) -> None:
    """Inserts rows."""
    cursor: Any = connection.connection.cursor()
    marks = ", ".join("?" for _ in staged.columns)
    cursor.executemany(f"INSERT INTO {staged.fullname} VALUES ({marks})", rows)


def stage_postgresql(connection: Connection, staged: Table, rows: Iterator[Values]) -> None:
    """Copies rows in, however long the file takes to read."""
    cursor: Any = connection.connection.cursor()
    with cursor, cursor.copy(f"COPY {staged.fullname} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


# For each database: its schema of temporary tables, how one is filled, what keeps other writers out for the rest of a
# transaction, and what keeps ids that were imported from being given out again.
TEMPORARY = {"sqlite": "temp", "postgresql": "pg_temp"}
STAGE = {"sqlite": stage_sqlite, "postgresql": stage_postgresql}
LOCK = {
    # 16 MB of cache hold most of the indexes; with the default of 2 MB a million rows take half as long again.
    "sqlite": ["COMMIT", "PRAGMA cache_size = -16000", "BEGIN IMMEDIATE"],
    "postgresql": ["LOCK TABLE hero IN SHARE ROW EXCLUSIVE MODE"],
}
MOVE_IDS = {
    "sqlite": [],  # AUTOINCREMENT does it.
    "postgresql": [
        "SELECT setval(seq, greatest(nextval(seq), (SELECT max(id) FROM hero)))"
        " FROM pg_get_serial_sequence('hero', 'id') AS seq"
    ],
}


def store(connection: Connection, staged: Table, names: Sequence[str], faults: Faults) -> int:
    """Moves the staged heroes into the table, with no other writer in between, but for those whose id a hero has
    already, or an earlier line: how many."""
    dialect = connection.dialect.name
    for statement in LOCK[dialect]:
        connection.exec_driver_sql(statement)
    heroes = select(*(staged.c[name] for name in names)).order_by(staged.c.line)
    if "id" in names:
        rank = func.row_number().over(partition_by=staged.c.id, order_by=staged.c.line)
        ranked = select(staged, rank.label("rank")).subquery()
        beside = ranked.outerjoin(HERO, HERO.c.id == ranked.c.id)
        taken = or_(ranked.c.rank > 1, HERO.c.id.is_not(None))
        clashes = select(ranked.c.line).select_from(beside).where(taken).order_by(ranked.c.line)
        before = faults.count
        with connection.execute(clashes, execution_options=STREAM) as lines:
            for line in lines.scalars():
                faults.add(line, "id: A hero has it already")
        if faults.count > before:
            free = select(*(ranked.c[name] for name in names)).select_from(beside).where(~taken)
            heroes = free.order_by(ranked.c.line)
    insertion = insert(HERO).from_select(names, heroes)
    count = connection.execute(insertion, execution_options={"preserve_rowcount": True}).rowcount
    if "id" in names:
        for statement in MOVE_IDS[dialect]:
            connection.exec_driver_sql(statement)
    connection.commit()
    return count


def size(stream: IO[bytes]) -> int | None:
    """How many bytes a file has that was just opened; None for a pipe."""
    if not stream.seekable():
        return None
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return length


@commands.command("import")
@click.argument("file", type=click.Path())
@FORMAT
@click.option("--skip-errors", is_flag=True, help="Import the rows that are right, and tell the lines that are not.")
def import_heroes(file: str, form: str | None, skip_errors: bool) -> None:
    """Import heroes from FILE, CSV or NDJSON; - is the standard input.

    A row needs what a POST needs. Ids, where the file has them, are kept. Without --skip-errors all rows are imported,
    or none.
    """
    faults = Faults(skip_errors)
    read = READERS[format_of(file, form)]
    with (
        told_in_a_line(file),
        click.open_file(file, "rb") as stream,
        progress(size(stream)) as bar,
        begun() as connection,
    ):
        rows = read(read_lines(stream, faults, bar.update), faults)
        first = next(rows, None)
        schema = HeroRow() if first and "id" in first[1] else HeroCreate()
        names = list(schema.fields)
        dialect = connection.dialect.name
        columns = [Column("line", BigInteger, primary_key=True)] + [Column(name, HERO.c[name].type) for name in names]
        staged = Table("heroes_import", MetaData(), *columns, schema=TEMPORARY[dialect])
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {staged.fullname}")
        staged.create(connection)
        STAGE[dialect](connection, staged, validated(chain([first] if first else [], rows), schema, faults))
        with turn():
            count = store(connection, staged, names, faults)
    say(f"{count} heroes imported" + (f", {faults.count} lines skipped" if skip_errors else ""))
    if faults.count:
        sys.exit(1)


# --- Export ----------------------------------------------------------------------------------------------------------


@contextmanager
def output(path: str) -> Iterator[IO[bytes]]:
    """Where an export goes: a file that is new, or - or a device as it is."""
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        with click.open_file(path, "wb") as file:
            yield file
            file.flush()
    else:
        with written(path) as temporary, open(temporary, "wb") as file:
            yield file


@commands.command("export")
@click.argument("file", type=click.Path())
@FORMAT
@click.option("--with-secrets", is_flag=True, help="The secret names, too. Without them it can't be imported again.")
def export_heroes(file: str, form: str | None, with_secrets: bool) -> None:
    """Export all heroes to FILE, as CSV or NDJSON; - is the standard output.

    They are those of one moment, in the order of their ids. FILE is whole, or as it was before.
    """
    writer = WRITERS[format_of(file, form)]
    fields = HeroPublic().fields | (HeroCreate().fields if with_secrets else {})
    columns = [column for column in HERO.c if column.name in fields]
    last_id = select(func.max(HERO.c.id))
    count, done = 0, 0
    # Counting a large table would take long; its last id, by which the bar goes, is at hand.
    with (
        told_in_a_line(file),
        begun() as connection,
        output(file) as stream,
        progress(connection.execute(last_id).scalar()) as bar,
        connection.execute(select(*columns).order_by(HERO.c.id), execution_options=STREAM) as heroes,
    ):
        write = writer(stream, [column.name for column in columns])
        for rows in heroes.partitions():
            write(rows)
            count += len(rows)
            bar.update(rows[-1].id - done)
            done = rows[-1].id
    say(f"{count} heroes exported")


# --- Backup ----------------------------------------------------------------------------------------------------------


@commands.command("backup")
@click.argument("file", type=click.Path(dir_okay=False))
def back_up(file: str) -> None:
    """Copy the SQLite database to FILE, as it is at this moment, while it is in use.

    FILE is whole, or as it was before. To restore it: stop the service, delete database.db-wal and database.db-shm if
    they are there, and copy FILE to database.db.
    """
    if db.engine.dialect.name != "sqlite":
        raise click.ClickException("This is for SQLite. For PostgreSQL use pg_dump --format=custom --file=FILE.")
    if os.path.exists(file) and not os.path.isfile(file):
        raise click.ClickException(f"{file}: Not a regular file.")
    with told_in_a_line(file), begun() as connection:
        pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        source: Any = connection.connection.driver_connection
        with progress(pages) as bar, written(file) as temporary, closing(sqlite3.connect(temporary)) as target:
            source.backup(target, pages=PAGES, progress=lambda *_: bar.update(PAGES))
    say(f"{pages} pages copied to {file}")
