"""The commands of a resource. Data goes to stdout or a file, messages to stderr."""

import os
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import Schema
from sqlalchemy import Column, Connection, MetaData, Table, delete, exists, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from heroes.commands import files
from heroes.extensions import db
from heroes.storage.columns import Int64
from heroes.storage.locks import writer_lock
from heroes.storage.sqlite import check_files
from heroes.web.fields import Integer

MAX_ID = 2**53 - 1  # the largest integer that all JSON clients read exactly
LINE = "number of the line"  # a column of the staged rows; no column of a resource has this name

file_argument = click.argument("file", type=click.Path())
format_option = click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="Default: FILE's suffix.")


@contextmanager
def long_transaction(file: str) -> Iterator[Connection]:
    """Yield a connection in a transaction without time limit, which is rolled back unless it is committed.

    OS errors, which are about the file, and database errors become one-line ClickExceptions.
    """
    try:
        with db.engine.connect() as connection:
            # Left to its driver, SQLite begins no transaction before a write: two reads would see different states.
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("BEGIN")
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield connection
    except BrokenPipeError:
        raise  # The reader has enough; click exits without a message.
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except (SQLAlchemyError, db.engine.dialect.loaded_dbapi.Error, OverflowError) as error:
        # PostgreSQL may quote the row after the first line; sqlite3 quotes text that is not UTF-8 after "with text".
        message = re.split("\n| with text ", str(getattr(error, "orig", error)))[0]
        raise click.ClickException(f"database: {message}") from error


def stage_rows(connection: Connection, table: Table, names: Iterable[str], rows: Iterator[list[Any]]) -> Table:
    """Return a temporary table of the rows and their line numbers. move_rows() inserts all of them, or none."""
    postgresql = connection.dialect.name == "postgresql"
    staged = Table(
        f"{table.name}_import",
        MetaData(),
        # SQLite's rowid. On PostgreSQL an index would cost more than the one sort that it saves.
        Column(LINE, Int64, primary_key=not postgresql),
        *(Column(name, table.c[name].type) for name in names),
        schema="pg_temp" if postgresql else "temp",
        # Behind a pooler the server's session is another client's after the commit.
        postgresql_on_commit="DROP",
    )
    # COPY and executemany() bypass SQLAlchemy, so convert the values as the column types do.
    dialect = connection.dialect
    quoted = dialect.identifier_preparer.format_table(staged)
    processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in staged.c]
    if any(processors):
        rows = ([each(value) if each else value for each, value in zip(processors, row, strict=True)] for row in rows)
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {quoted}")
    staged.create(connection)
    cursor: Any = connection.connection.cursor()
    if postgresql:
        with cursor.copy(f"COPY {quoted} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        # For the planner: autovacuum does not see temporary tables.
        connection.exec_driver_sql(f"ANALYZE {quoted}")
    else:
        cursor.executemany(str(insert(staged).compile(connection)), rows)
    return staged


def move_rows(connection: Connection, staged: Table, table: Table, errors: files.ImportErrors) -> int:
    """Insert the staged rows into the table, commit, and return their number. Rows whose id is taken are errors."""
    postgresql = connection.dialect.name == "postgresql"
    quoted = connection.dialect.identifier_preparer.format_table(table)
    if not postgresql:
        connection.exec_driver_sql("COMMIT")
        # 16 MB hold most of the indexes; with the default of 2 MB a million rows take half as long again.
        connection.exec_driver_sql("PRAGMA cache_size = -16000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    line, *columns = staged.c
    if "id" in staged.c:
        if postgresql:
            # A new row must not take one of the ids after they were checked.
            connection.exec_driver_sql(f"LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE")
        # Of each id that is not in the table, the first line.
        free = select(func.min(line)).where(~exists().where(table.c.id == staged.c.id)).group_by(staged.c.id)
        taken = select(line).except_(free)
        with connection.execute(taken.order_by(line), execution_options={"yield_per": 1000}) as result:
            for number in result.scalars():
                errors.add(number, f"id: A {table.name} has it already")
        if errors.count:
            connection.execute(delete(staged).where(line.in_(taken)))
    statement = insert(table).from_select([column.name for column in columns], select(*columns).order_by(line))
    count = connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount
    if postgresql and "id" in staged.c:
        # Do not generate the imported ids again. SQLite's AUTOINCREMENT knows them.
        sequence = func.pg_get_serial_sequence(quoted, "id")
        last_id = select(func.max(table.c.id)).scalar_subquery()
        connection.execute(select(func.setval(sequence, func.greatest(func.nextval(sequence), last_id))))
    connection.commit()
    return count


def resource_commands(name: str, model: Any, create_schema: type[Schema], public_schema: type[Schema]) -> click.Group:
    """Return the group `flask <name>` with import, export and backup.

    name: the plural, for messages. model: has an integer primary key `id` and a column for each field of the schemas.
    create_schema validates what is imported; public_schema has the fields that are exported.
    """
    group = AppGroup(name, help=f"Import, export and back up {name}.")
    table = model.__table__

    @group.command("import")
    @file_argument
    @format_option
    @click.option("--skip-errors", is_flag=True, help="Import the valid rows and report the others.")
    def import_rows(file: str, form: str | None, skip_errors: bool) -> None:
        """Import rows from FILE, CSV or NDJSON; - is the standard input.

        Each row is validated like the body of a POST. Ids, if the file has them, are kept. Without --skip-errors all
        rows are imported, or none.
        """
        form, errors = files.format_of(file, form), files.ImportErrors(skip_errors)
        with (
            long_transaction(file) as connection,
            # Bytes that are not UTF-8 become surrogates, which the schema rejects.
            click.open_file(file, encoding="utf-8-sig", errors="surrogateescape") as stream,
            files.progress(0 if file == "-" else os.path.getsize(file)) as bar,
        ):
            schema = create_schema.from_dict({"id": Integer(required=True, ge=1, le=MAX_ID)})()
            known = {field.data_key or name: field.allow_none for name, field in schema.load_fields.items()}
            rows = files.READERS[form](files.iter_lines(stream, form, bar, errors), known, errors)
            # The first row decides whether the rows have ids.
            first = list(islice(rows, 1))
            if not any("id" in row for _, row in first):
                schema = create_schema()
            names = [field.attribute or name for name, field in schema.load_fields.items()]
            values = files.iter_valid_rows(chain(first, rows), schema, names, errors)
            staged = stage_rows(connection, table, names, values)
            with writer_lock():
                check_files(connection)
                count = move_rows(connection, staged, table, errors)
        skipped = f", {errors.count} lines skipped" if skip_errors else ""
        files.report(f"{count} {name} imported{skipped}")
        if errors.count:
            sys.exit(1)

    @group.command("export")
    @file_argument
    @format_option
    @click.option("--with-secrets", is_flag=True, help="Include fields that no response has; an import needs them.")
    @click.option("--escape-formulas", is_flag=True, help="CSV only: put an apostrophe before formulas.")
    def export_rows(file: str, form: str | None, with_secrets: bool, escape_formulas: bool) -> None:
        """Export all rows to FILE, CSV or NDJSON; - is the standard output.

        They are a consistent snapshot, ordered by id. FILE is replaced at the end, or left as it was.
        """
        form = files.format_of(file, form)
        if escape_formulas and form != "csv":
            raise click.UsageError("--escape-formulas is for CSV only.")
        public = {"id": Integer(attribute="id")} | public_schema().dump_fields
        fields = public | (create_schema().fields if with_secrets else {})
        # Under the names that an import reads: of two fields of one column, the one that it loads.
        loaded = create_schema().load_fields
        by_load = sorted(fields.items(), key=lambda item: item[0] in {"id", *loaded})
        keys = {field.attribute or name: (field.data_key or name, field) for name, field in by_load}
        columns = [column for column in table.c if column.name in keys]
        fields_in_order = dict(keys[column.name] for column in columns)
        query = select(*columns).order_by(table.c.id)
        with long_transaction(file) as connection:
            if connection.dialect.name == "postgresql":
                # Both statements see the same rows, as on SQLite.
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            count: int = connection.scalars(select(func.count()).select_from(table)).one()
            with (
                connection.execute(query, execution_options={"yield_per": 1000}) as result,
                files.output(file) as target,
                click.open_file(target, "w", encoding="utf-8") as stream,
                files.progress(count, result) as rows,
            ):
                files.write_rows(stream, form, fields_in_order, rows, escape_formulas)
        files.report(f"{count} {name} exported")

    @group.command("backup")
    @click.argument("file", type=click.Path(dir_okay=False))
    def backup(file: str) -> None:
        """Copy the SQLite database to FILE, while it is in use.

        FILE is replaced at the end, or left as it was. To restore it: stop the service, delete database.db-wal and
        database.db-shm if they exist, and copy FILE to database.db.
        """
        if file == "-":
            raise click.UsageError("A backup is a file, not a stream.")
        if db.engine.dialect.name != "sqlite":
            raise click.ClickException("This is for SQLite. For PostgreSQL use pg_dump --format=custom --file=FILE.")
        if os.path.exists(file) and not os.path.isfile(file):
            raise click.ClickException(f"{file}: Not a regular file.")
        with long_transaction(file) as connection:
            pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            source: Any = connection.connection.driver_connection
            # Tracing libraries replace connect() by one whose connections backup() does not take.
            with files.progress(pages) as bar, files.output(file) as copy, closing(sqlite3.Connection(copy)) as target:
                source.backup(target, pages=1000, progress=lambda *_: bar.update(1000))
        files.report(f"{pages} pages copied to {file}")

    return group
