"""The import of rows by way of a temporary table: they become visible all at once, or not at all."""

from collections.abc import Iterable, Iterator
from typing import Any

from marshmallow import Schema, ValidationError
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, delete, exists, func, insert, select

from heroes.commands.files import ImportErrors, Rows


def iter_valid_rows(rows: Rows, schema: Schema, errors: ImportErrors) -> Iterator[list[Any]]:
    """Yield the line number and the values of each valid row."""
    names = list(schema.load_fields)
    for line, row in rows:
        if ("id" in row) is not ("id" in names):
            errors.add(line, "id: Must be in every row or in none")
            continue
        try:
            loaded = schema.load(row)
        except ValidationError as error:
            errors.add(line, "; ".join(f"{name}: {message['msg']}" for name, message in error.messages_dict.items()))
            continue
        yield [line, *map(loaded.get, names)]


def stage_rows(connection: Connection, table: Table, names: Iterable[str], rows: Iterator[list[Any]]) -> Table:
    """Return a temporary table of rows: their line numbers and the named columns of a table."""
    postgresql = connection.dialect.name == "postgresql"
    staged = Table(
        f"{table.name}_import",
        MetaData(),
        Column("line", BigInteger, primary_key=True),
        *(Column(name, table.c[name].type) for name in names),
        schema="pg_temp" if postgresql else "temp",
        prefixes=["TEMPORARY"],
        # Behind a pooler the server's session is another client's after the commit.
        postgresql_on_commit="DROP",
    )
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {staged.fullname}")
    staged.create(connection)
    cursor: Any = connection.connection.cursor()
    if postgresql:
        with cursor.copy(f"COPY {staged.fullname} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    else:
        cursor.executemany(str(insert(staged).compile(connection)), rows)
    return staged


def move_rows(connection: Connection, staged: Table, table: Table, errors: ImportErrors) -> int:
    """Insert the staged rows into the table, commit, and return their number. Rows whose id is taken are errors."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:
        connection.exec_driver_sql(f"LOCK TABLE {table.fullname} IN SHARE ROW EXCLUSIVE MODE")
    else:
        connection.exec_driver_sql("COMMIT")
        # 16 MB hold most of the indexes; with the default of 2 MB a million rows take half as long again.
        connection.exec_driver_sql("PRAGMA cache_size = -16000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    line, *columns = staged.c
    if "id" in staged.c:
        # Of each id that is not in the table, the first line.
        free = select(func.min(line)).where(~exists().where(table.c.id == staged.c.id)).group_by(staged.c.id)
        taken = select(line).except_(free)
        with connection.execute(taken.order_by("line"), execution_options={"yield_per": 1000}) as result:
            for number in result.scalars():
                errors.add(number, f"id: A {table.name} has it already")
        if errors.count:
            connection.execute(delete(staged).where(line.in_(taken)))
    statement = insert(table).from_select([column.name for column in columns], select(*columns).order_by(line))
    count = connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount
    if postgresql and "id" in staged.c:
        # Do not generate the imported ids again. SQLite's AUTOINCREMENT knows them.
        sequence = func.pg_get_serial_sequence(table.fullname, "id")
        last_id = select(func.max(table.c.id)).scalar_subquery()
        connection.execute(select(func.setval(sequence, func.greatest(func.nextval(sequence), last_id))))
    connection.commit()
    return count
