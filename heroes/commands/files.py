"""The files of the commands: CSV (RFC 4180) and NDJSON (an object on each line)."""

import csv
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import orjson
from marshmallow import Schema, ValidationError
from marshmallow.fields import Field

from heroes.web.errors import OUT_OF_RANGE, located_errors
from heroes.web.fields import Id, Integer, String, error
from heroes.web.responses import to_json

MAX_LINE = 2**20
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Rows = Iterator[tuple[int, dict[str, Any]]]  # line numbers and rows
Known = Mapping[str, bool | None]  # the names of a row's values, and whether they may be null
Fields = Mapping[str, Field[Any]]  # the names of a row's values, and what dumps them


def format_of(file: str, form: str | None) -> str:
    """Return the given format, or else the one of the suffix. Raises UsageError if there is neither."""
    form = form or Path(file).suffix.lower().removeprefix(".")
    if form not in READERS:
        raise click.UsageError("--format csv or --format ndjson is needed: the file name has no such suffix.")
    return form


def progress(length: int, rows: Iterable[Any] | None = None) -> Any:
    """Return a progress bar on stderr, hidden if stderr is no terminal or the length is unknown (0)."""
    hidden = not length or not sys.stderr or not sys.stderr.isatty()
    return click.progressbar(rows, length, file=sys.stderr, hidden=hidden, update_min_steps=length // 200)


def report(message: str) -> None:
    """Write what was done to stderr. It is done, even if stderr can't be written."""
    with suppress(OSError):
        click.echo(message, err=True)


def stop(number: int, _: object) -> None:
    """Exit, and ignore further signals, which a closing terminal sends: they would interrupt the removal of a file."""
    for each in SIGNALS:
        if signal.getsignal(each) is stop:
            signal.signal(each, lambda *_: None)
    sys.exit(128 + number)


@contextmanager
def output(path: str) -> Iterator[str]:
    """Yield the path of a new file, readable by its owner only, that replaces `path` unless an exception is raised.

    Yields `path` itself if it is stdout (-), a device or a named pipe. Raises ClickException for a database in use.
    """
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        yield path
        return
    target = Path(os.path.realpath(path))
    database = str(target).removesuffix("-wal").removesuffix("-shm").removesuffix("-journal")
    # SQLite would apply a crashed program's leftover file to the new database, too.
    if os.path.exists(f"{database}-wal") or os.path.exists(f"{database}-journal"):
        raise click.ClickException(f"{target}: Belongs to a database in use.")
    with ExitStack() as stack:
        main = threading.current_thread() is threading.main_thread()
        # By default a signal ends Python at once: the new file stays. nohup ignores SIGHUP.
        for number in (each for each in SIGNALS if main and signal.getsignal(each) is signal.SIG_DFL):
            stack.callback(signal.signal, number, signal.signal(number, stop))
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}."))
        temporary = Path(directory, target.name)
        temporary.touch(0o600)
        yield str(temporary)
        with temporary.open() as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    # fsync() of the directory puts the new name on disk. It needs the right to read the directory.
    with suppress(OSError), ExitStack() as opened:
        descriptor = os.open(target.parent, os.O_RDONLY)
        opened.callback(os.close, descriptor)
        os.fsync(descriptor)


@dataclass
class ImportErrors:
    """Collects import errors; aborts on the first unless `skip` is set."""

    skip: bool
    count: int = 0

    def add(self, line: int, message: str, fatal: bool = False) -> None:
        """Report an error. The message must not quote a value. Raises ClickException unless errors are skipped."""
        if fatal or not self.skip:
            raise click.ClickException(f"line {line}: {message}. Nothing was imported.")
        click.echo(f"line {line}: {message}", err=True)
        self.count += 1


def iter_lines(stream: Any, form: str, bar: Any, errors: ImportErrors) -> Iterator[str]:
    """Yield the lines of a file. One that is too long is an error, and becomes a blank line."""
    stream.reconfigure(newline="")  # Keep the line breaks in values.
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), ""), 1):
        bar.update(len(line))
        if number == 1 and "\0" in line:
            errors.add(1, "Not a text file in UTF-8; it may be UTF-16", fatal=True)
        if len(line) > MAX_LINE:
            # In CSV it may be a part of a value, so that it can't be skipped.
            errors.add(number, f"Longer than {MAX_LINE} characters", fatal=form == "csv")
            while line and line[-1] not in "\r\n":
                line = stream.readline(MAX_LINE)
            line = "\n"
        yield line


def read_ndjson(lines: Iterator[str], known: Known, errors: ImportErrors) -> Rows:
    """Yield objects. Unknown keys are ignored, as in a POST, unless only case or blanks make them unknown."""
    folded = {name.casefold() for name in known}
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            errors.add(number, error("json_invalid")["msg"])
            continue
        if not isinstance(row, dict):
            errors.add(number, error("model_attributes_type")["msg"])
        elif misspelled := [key for key in row.keys() - known.keys() if key.strip().casefold() in folded]:
            errors.add(number, f"Unknown key {misspelled[0]!r}; known are {', '.join(known)}")
        else:
            yield number, row


def read_csv(lines: Iterator[str], known: Known, errors: ImportErrors) -> Rows:
    """Yield the rows below a header. An empty value is null if the field allows it, otherwise an empty string."""
    reader = csv.reader(lines, strict=True)
    number = 1
    try:
        header = [name.strip() for name in next(reader, known)]  # an empty file has no rows
        if problem := header_problem(header, known):
            errors.add(1, f"{problem}. The columns are {', '.join(known)}", fatal=True)
        number = reader.line_num + 1
        for record in reader:
            # Spreadsheets write an empty row as commas.
            if len(record) == len(header) and any(record):
                values = zip(header, record, strict=True)
                yield number, {name: value or (None if known[name] else "") for name, value in values}
            elif any(record):
                errors.add(number, f"{len(record)} columns below a header of {len(header)}")
            number = reader.line_num + 1
    except csv.Error as error:
        # Where the next record begins is unknown: the reader would take the rest of a quoted value for rows.
        errors.add(number, f"Not valid CSV, {error}", fatal=True)


def header_problem(header: list[str], known: Known) -> str | None:
    """Return what is wrong with a CSV header, None if it is fine."""
    if not any(header):
        return "Blank instead of a header"
    if header[0].lower().startswith("sep="):
        return "'sep=' instead of a header"
    if {name.casefold() for name in known}.isdisjoint(name.casefold() for name in header):
        # It may be a row: do not quote it.
        text = "".join(header)
        delimiter = "semicolons" if ";" in text else "tabs" if "\t" in text else ""
        return f"Separated by {delimiter} instead of commas" if delimiter else "Not a header"
    for name in header:
        if name not in known:
            return f"Unknown column {name[:40]!r}"
        if header.count(name) > 1:
            return f"Column {name!r} comes more than once"
    return None


def iter_valid_rows(rows: Rows, schema: Schema, names: Sequence[str], errors: ImportErrors) -> Iterator[list[Any]]:
    """Yield the line number and the values of the named columns of each valid row."""
    with_ids = "id" in names
    for line, row in rows:
        if ("id" in row) is not with_ids:
            errors.add(line, "id: Must be in every row or in none")
            continue
        try:
            loaded = schema.load(row)
        except (ValidationError, OverflowError, RecursionError) as error:
            other = "Nested too deep." if isinstance(error, RecursionError) else OUT_OF_RANGE
            found = located_errors(getattr(error, "messages", other))
            errors.add(line, "; ".join(": ".join([*map(str, each["loc"]), each["msg"].rstrip(".")]) for each in found))
            continue
        yield [line, *map(loaded.get, names)]


def dump_rows(fields: Fields, rows: Iterable[Sequence[Any]], form: str) -> Iterator[Sequence[Any]]:
    """Yield the rows as the fields dump them. Raises ClickException for a value that could not be imported again."""
    refused: dict[type, str] = {bytes: "binary data"}  # SQLite stores it in a column of any type
    if form == "csv":
        refused |= dict.fromkeys((list, dict), "a list or an object, which CSV can't hold")
    as_stored = {type(field) for field in fields.values()} <= {Id, Integer, String}
    columns = {field.attribute or str(field.name): field for field in fields.values()}
    for row in rows:
        if not as_stored:
            named = dict(zip(columns, row, strict=True))
            row = [field.serialize(name, named, lambda it, key, _: it[key]) for name, field in columns.items()]
        types = list(map(type, row))
        if not refused.keys().isdisjoint(types):
            names, at = list(fields), next(at for at, kind in enumerate(types) if kind in refused)
            raise click.ClickException(f"id {row[names.index('id')]}: {names[at]} is {refused[types[at]]}.")
        yield row


def write_rows(file: IO[str], form: str, fields: Fields, rows: Iterable[Sequence[Any]], escape: bool) -> None:
    """Write rows as objects, or as CSV below a header. escape: escape formulas in CSV."""
    rows = dump_rows(fields, rows, form)
    if form == "csv":
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows(map(escape_formulas, rows) if escape else rows)
    else:
        file.writelines(to_json(dict(zip(fields, row, strict=True))).decode() + "\n" for row in rows)
    file.flush()


def escape_formulas(row: Sequence[Any]) -> list[Any]:
    """Put an apostrophe before each text that a spreadsheet would take for a formula."""
    return [f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value for value in row]


READERS = {"csv": read_csv, "ndjson": read_ndjson, "jsonl": read_ndjson}
