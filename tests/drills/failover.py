"""The primary is killed with -9 under write load, and its synchronous standby promoted."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import psycopg

from tests.drills.service import Client, Report, cluster, kill, migrate, serving, together

CLIENTS = 4
LIMIT = 5  # seconds until the service has to be back


def follow(primary_url: str) -> None:
    """Makes the primary wait, at each commit, for its standby, and waits until that has caught up."""
    with psycopg.connect(primary_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while connection.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
            assert time.monotonic() < deadline, "the standby doesn't follow"
            time.sleep(0.05)


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yields the report of one failover, with 5 seconds of load before and after it, 1 when quick."""
    load = 1 if quick else 5
    over = Event()
    acknowledged: list[tuple[float, str]] = []
    refused: Counter[int | None] = Counter()

    with cluster(folder / "primary") as primary:
        migrate(primary.url)
        with cluster(folder / "standby", copy_of=primary) as standby:
            follow(primary.url)
            url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            with serving(url, folder, WEB_CONCURRENCY="2", ACCESS_LOG="off") as server:

                def write(number: int) -> None:
                    client = Client(server.port)
                    for count in range(1_000_000):
                        if over.is_set():
                            return
                        name = f"{number}-{count}"
                        answer = client.send("POST", "/heroes/", {"name": name, "secret_name": "Dive Wilson"})
                        if answer and answer.status == 200:
                            acknowledged.append((time.monotonic(), name))
                        else:
                            refused[answer.status if answer else None] += 1
                            time.sleep(0.02)

                def fail_over() -> None:
                    time.sleep(load)
                    kill(primary.pid)
                    standby.control("-w", "promote")
                    promoted = time.monotonic()
                    while acknowledged[-1][0] < promoted and time.monotonic() < promoted + LIMIT:
                        time.sleep(0.05)
                    time.sleep(load)
                    over.set()

                together(fail_over, *(lambda number=number: write(number) for number in range(CLIENTS)))
                ended = time.monotonic()
                restarted = server.process.poll() is not None
            with psycopg.connect(standby.url) as connection:
                stored = {name for (name,) in connection.execute("SELECT name FROM hero")}

    gap = max(later - earlier for earlier, later in pairwise([*sorted(moment for moment, _ in acknowledged), ended]))
    problems = [f"{name} was acknowledged and is gone" for _, name in acknowledged if name not in stored]
    if gap > LIMIT:
        problems.append(f"no write for {gap:.1f} s")
    if restarted or set(refused) - {503, None}:
        problems.append(f"answers other than 503: {dict(refused)}")
    figures = (
        f"{len(acknowledged)} writes acknowledged before and after the primary was killed, "
        f"none for {gap:.2f} s between, {refused[503]} answered 503 and {refused[None]} not at all"
    )
    yield figures, problems
