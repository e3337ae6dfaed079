"""Kill the primary with SIGKILL under write load, and promote its synchronous standby."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import psycopg

from tests.constants import HERO
from tests.databases import migrated
from tests.drills.service import Client, Report, background, cluster, kill
from tests.drills.writers import PAUSE
from tests.servers import serving

CLIENTS = 4
LIMIT = 5  # seconds until the service must be back


def follow(primary_url: str) -> None:
    """Turn on synchronous replication on the primary, and wait until its standby is synchronous."""
    with psycopg.connect(primary_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while connection.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
            assert time.monotonic() < deadline, "the standby isn't synchronous"
            time.sleep(0.05)


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield the report of one failover, with 5 seconds of load before and after it, or 1 if `quick`."""
    load = 1 if quick else 5
    acknowledged: list[tuple[float, str]] = []
    refused: Counter[int | None] = Counter()

    with cluster(folder / "primary") as primary:
        migrated(primary.url)
        with cluster(folder / "standby", copy_of=primary) as standby:
            follow(primary.url)
            url = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            with serving(url, folder, WEB_CONCURRENCY="2", ACCESS_LOG="off") as server:

                def write(stop: Event) -> None:
                    client = Client(server.port)
                    while not stop.wait(PAUSE):
                        name = uuid.uuid4().hex
                        response = client.send("POST", "/heroes/", HERO | {"name": name})
                        if response and response.status == 200:
                            acknowledged.append((time.monotonic(), name))
                        else:
                            refused[response.status if response else None] += 1
                            time.sleep(0.02)

                with background(*[write] * CLIENTS):
                    time.sleep(load)
                    kill(primary.pid)
                    standby.control("-w", "promote")
                    promoted = time.monotonic()
                    while acknowledged[-1][0] < promoted and time.monotonic() < promoted + LIMIT:
                        time.sleep(0.05)
                    time.sleep(load)
                ended = time.monotonic()
                restarted = server.process.poll() is not None
            with psycopg.connect(standby.url) as connection:
                stored = {name for (name,) in connection.execute("SELECT name FROM hero")}

    gap = max(later - earlier for earlier, later in pairwise([*sorted(moment for moment, _ in acknowledged), ended]))
    problems = [f"{name} was acknowledged but isn't stored" for _, name in acknowledged if name not in stored]
    if gap > LIMIT:
        problems.append(f"no write for {gap:.1f} s")
    if restarted or set(refused) - {503, None}:
        problems.append(f"responses other than 503: {dict(refused)}")
    figures = (
        f"{len(acknowledged)} writes acknowledged before and after the primary was killed, "
        f"with a gap of {gap:.2f} s, {refused[503]} requests with 503 and {refused[None]} without a response"
    )
    yield figures, problems
