"""Mixed load through nginx on each database, to find unexpected responses and growing memory or open files.

    python -m tests.soak [--minutes 10] [--database sqlite|postgresql] [--clients 8]

Writes the results to docs/operations/soak.md, with a plot, and exits with 1 if it found any of these.
"""

import argparse
import http.client
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

from tests.client import Client
from tests.constants import HERO, ROOT
from tests.databases import migrated, new_database, running_postgres
from tests.servers import Server, start_server
from tests.soak.proxy import FAST, Nginx

FOLDER = ROOT / "docs" / "operations"
DATABASES = ("sqlite", "postgresql")
WORKERS = 2
STOCK = 1000  # heroes created before the load, so that pages are full
SAMPLES = 120
WARM = 0.25  # fraction of the time that is ignored, until caches and arenas are filled
# Limits of the growth from the median of the first third to that of the last. A late pool connection opens 3 files.
MEMORY_GROWTH = 0.02
FILES_GROWTH = 0.05


class Sample(NamedTuple):
    """The resources of the server's processes at one time."""

    seconds: float
    pss: float  # MB
    files: int
    answers: int


@dataclass
class Load:
    """Clients that create, read, list, change and delete heroes, and count outcomes: "expected", or a description."""

    port: int
    until: float
    outcomes: Counter[str]
    lock: threading.Lock

    def ask(self, client: Client, expected: int, method: str, path: str, body: object = None) -> dict[str, int]:
        """Send one request and count whether it gets the `expected` status; return the body, or {} without one."""
        content: dict[str, int] = {}
        try:
            response = client.send(method, path, body)
            outcome = "expected" if response.status == expected else f"{method} {response.status}"
            content = response.json
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome = type(error).__name__
            client.close()
        with self.lock:
            self.outcomes[outcome] += 1
        return content

    def work(self) -> None:
        """Send requests as one client until the time is up."""
        with Client(self.port, timeout=60) as client:
            while time.monotonic() < self.until:
                hero = self.ask(client, 200, "POST", "/heroes/", HERO)
                path = f"/heroes/{hero.get('id', 0)}"
                self.ask(client, 200, "GET", path)
                self.ask(client, 200, "GET", "/heroes/?limit=100")
                self.ask(client, 200, "PATCH", path, {"age": 30})
                self.ask(client, 422, "POST", "/heroes/", {"name": None})
                self.ask(client, 200, "DELETE", path)
                self.ask(client, 404, "GET", path)


def usage(server: Server) -> tuple[float, int]:
    """Return the memory in MB (PSS: shared pages are divided) and the open files of all processes of a server."""
    pss, files = 0.0, 0
    for process in [server.process.pid, *(worker.pid for worker in server.workers())]:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        pss += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        files += len(list(Path(f"/proc/{process}/fd").iterdir()))
    return pss, files


def run(url: str, minutes: float, clients: int, folder: Path) -> tuple[list[Sample], Counter[str]]:
    """Load a server on the database at `url`; return the samples and the count of each outcome."""
    # Recycled workers would hide a leak.
    server = start_server(
        url, folder, WEB_CONCURRENCY=str(WORKERS), MAX_REQUESTS="0", PROXY_HOPS="1", METRICS="1", TMPDIR=str(folder)
    )
    # The second address of deploy/nginx.conf is the same server here.
    nginx = Nginx(folder / "nginx", [server.port] * 2, FAST)
    try:
        load = Load(nginx.port, float("inf"), Counter(), threading.Lock())
        with Client(nginx.port, timeout=60) as client:
            for number in range(STOCK):
                load.ask(client, 200, "POST", "/heroes/", {"name": f"Hero {number}", "secret_name": "Sentinel"})
        started = time.monotonic()
        load.until = started + minutes * 60
        threads = [threading.Thread(target=load.work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        samples: list[Sample] = []
        while (now := time.monotonic()) < load.until:
            samples.append(Sample(now - started, *usage(server), load.outcomes.total()))
            time.sleep(minutes * 60 / SAMPLES)
        for thread in threads:
            thread.join()
        return samples, load.outcomes
    finally:
        nginx.stop()
        server.stop()


def judge(name: str, samples: Sequence[Sample], outcomes: Counter[str]) -> tuple[bool, str]:
    """Return whether one database passed, and its row of the table."""
    judged = [sample for sample in samples if sample.seconds >= WARM * samples[-1].seconds]
    seconds = [sample.seconds for sample in judged]
    unexpected = {outcome: count for outcome, count in outcomes.items() if outcome != "expected"}
    passed = not unexpected
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
        passed &= flat
        slope = linear_regression(seconds, values).slope * 3600
        cells += [f"{first:.{digits}f} → {last:.{digits}f}{'' if flat else ' **grows**'}", f"{slope:+.{digits}f}"]
    return passed, f"| {' | '.join(cells)} |"


def report(rows: Sequence[str], minutes: float, clients: int) -> None:
    """Write the report and print its table."""
    lines = [
        "| database | responses | per second | unexpected | memory, MB (PSS) | an hour | open files | an hour |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    table = "\n".join(lines)
    text = f"""# Soak

Written by `make soak`; do not edit.

{minutes:g} minutes of mixed load on each database: {clients} clients through nginx, a gunicorn of {WORKERS} workers
that are not recycled (`MAX_REQUESTS=0`), Python {platform.python_version()}. "Unexpected" counts
responses with another status than the expected one.

Memory and open files are sums over all its processes: medians of the first and of the last third of the time, without
the first quarter of it, in which caches and pools fill. The run fails if memory grows between the two by more than
{MEMORY_GROWTH:.0%}, or open files by more than {FILES_GROWTH:.0%}. "An hour" is the slope of the line through all of
that time. A run of less than ten minutes is mostly noise: pools still fill.

{table}

![Memory and open files over time](soak.svg)
"""
    (FOLDER / "soak.md").write_text(text)
    print(table)


def plot(found: dict[str, list[Sample]]) -> None:
    """Draw memory and open files over time."""
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
    """Run the soak test and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="duration for each database")
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both")
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
                with running_postgres(folder / "postgres") as postgres:
                    url = new_database(postgres)
                    migrated(url)
                    found[name], outcomes = run(url, arguments.minutes, arguments.clients, folder)
            judged.append(judge(name, found[name], outcomes))
    report([row for _, row in judged], arguments.minutes, arguments.clients)
    plot(found)
    return 0 if all(passed for passed, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
