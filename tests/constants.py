"""Shared by the tests: the tutorial's first hero in its forms, and marks for tests of one database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

# Runs SQL beside the service and returns the rows: the fixture `query`.
Query = Callable[[str], list[tuple[Any, ...]]]

HERO: dict[str, Any] = {"name": "Deadpond", "secret_name": "Dive Wilson"}

sqlite_only = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
# All tests with the fixture `gunicorn` run in one process, so that only one starts it.
on_gunicorn = pytest.mark.xdist_group("gunicorn")


def public(**changes: object) -> dict[str, Any]:
    """Return HERO as the API shows it in a new table, with `changes`. A new public column is added here."""
    return {"name": "Deadpond", "age": None, "id": 1} | changes


def stored(**changes: object) -> dict[str, Any]:
    """Return HERO as an export with secrets has it, in the order of its columns, with `changes`."""
    return {"id": 1} | public() | HERO | changes


def as_csv(*heroes: dict[str, Any]) -> bytes:
    """Return an export of heroes whose texts need no quotes."""
    rows = [list(heroes[0]), *(["" if value is None else str(value) for value in hero.values()] for hero in heroes)]
    return "".join(",".join(row) + "\r\n" for row in rows).encode()
