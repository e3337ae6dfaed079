"""Time the import and export of a million heroes on both databases: `make bulk`."""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.constants import ROOT
from tests.databases import migrated, running_postgres

# Limits: heroes per second, and MB of memory beyond what a small run takes. SQLite's cache takes 16 MB.
IMPORT, EXPORT, GROWTH = 50_000, 100_000, 32
# Runs the command and prints its CPU time in seconds and its peak memory in kB.
MEASURED = (
    "import sys, time, flask.cli\n"
    "try: flask.cli.main()\n"
    "finally:\n"
    "    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    "    print(time.process_time(), peak.split()[1])"
)


def many(path: Path, count: int, ids: bool = True) -> Path:
    """Write a CSV file of `count` heroes with random names. About one age in a hundred is missing."""
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
    """A completed command: wall-clock seconds, CPU seconds without the database server's, and peak MB."""

    wall: float
    cpu: float
    memory: int


def run(database_url: str, *args: str) -> Run:
    """Run `flask heroes …` and measure it."""
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
    """Yield the URLs of two empty databases."""
    with running_postgres(folder / "postgresql") as url:
        yield {"SQLite": f"sqlite:///{folder}/database.db", "PostgreSQL": url}


def main() -> None:
    """Print the figures; exit with 1 if one misses its limit or the export differs from the import."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk")
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    passed = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The few heroes have no ids, so that both files can be imported into one table.
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
                passed &= same
                for command, least in (("import", IMPORT), ("export", EXPORT)):
                    done = large[command]
                    growth = done.memory - small[command].memory
                    passed &= count / done.wall >= least and growth <= GROWTH
                    print(
                        f"{database}: {command} of {count:,} rows: {done.wall:.1f} s, {done.cpu:.1f} s of CPU,"
                        f" {count / done.wall:,.0f} rows/s (at least {least:,}),"
                        f" {done.memory} MB, {growth} more than for a small run (at most {GROWTH})"
                    )
                print(f"{database}: the export {'equals' if same else 'DIFFERS FROM'} the imported file")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
