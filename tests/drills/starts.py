"""Start eight processes at once on a new SQLite file, several times."""

import importlib
import logging
import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

from heroes import create_app
from tests.constants import HERO
from tests.drills.service import Report

PROCESSES = 8


def start(url: str, barrier: Barrier) -> None:
    """Start the service at the same moment as the others and create a hero. A failure sets the exit code."""
    logging.disable(logging.WARNING)
    barrier.wait(30)
    client = create_app({"SQLALCHEMY_DATABASE_URI": url}).test_client()
    assert client.post("/heroes/", json=HERO).status_code == 200


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield the report of 20 rounds, or 3 if `quick`."""
    rounds = 3 if quick else 20
    # A forked process finds what create_app() imports.
    importlib.import_module("heroes.commands")
    importlib.import_module("heroes.views")
    context = multiprocessing.get_context("fork")
    problems = []
    for number in range(rounds):
        url = f"sqlite:///{folder / f'{number}.db'}"
        barrier = context.Barrier(PROCESSES)
        processes = [context.Process(target=start, args=(url, barrier)) for _ in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            if process.exitcode != 0:
                problems.append(f"round {number}: exit code {process.exitcode}")
                process.kill()
        with closing(sqlite3.connect(folder / f"{number}.db")) as connection:
            [(heroes,)] = connection.execute("SELECT count(*) FROM hero")
        if heroes != PROCESSES:
            problems.append(f"round {number}: {heroes} heroes")
    yield f"{PROCESSES} processes started at once on a new file, {rounds} times", problems
