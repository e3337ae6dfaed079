"""A second service reads from a standby: its lag, refused writes, and the loss of the standby."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.constants import HERO
from tests.databases import migrated
from tests.drills.failover import follow
from tests.drills.service import Client, Cluster, Report, cluster, kill
from tests.drills.writers import probing, until
from tests.servers import serving

LIMIT = 5  # seconds until reads must be served again


def is_standby(url: str) -> bool:
    """Return whether the server at `url` is a standby."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


def lag(writing: Client, reading: Client, heroes: int) -> list[float]:
    """Create heroes; return for each the seconds until it can be read through the other service."""
    seconds = []
    for number in range(heroes):
        created = writing.send("POST", "/heroes/", HERO | {"name": f"{number}"})
        assert created and created.status == 200
        path, started = f"/heroes/{created.json['id']}", time.monotonic()
        while (response := reading.send("GET", path)) is None or response.status != 200:
            assert time.monotonic() < started + LIMIT, f"{path} can't be read"
        seconds.append(time.monotonic() - started)
    return seconds


def stale(writing: Client, reading: Client, standby: Cluster) -> list[str]:
    """Pause the standby's replay and change a hero. A write with the old ETag must be refused."""
    problems = []
    created = writing.send("POST", "/heroes/", HERO)
    assert created
    path = f"/heroes/{created.json['id']}"
    until(lambda: (response := reading.send("GET", path)) is not None and response.status == 200)
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
        writing.send("PATCH", path, {"age": 17})
        old = reading.send("GET", path)
        if old is None or old.json["age"] is not None:
            problems.append(f"read from a paused standby: {old}")
        elif (
            response := writing.send("PATCH", path, {"age": 18}, If_Match=old.headers["ETag"])
        ) and response.status != 412:
            problems.append(f"a change with an old ETag got {response.status}")
        connection.execute("SELECT pg_wal_replay_resume()")
    return problems


def refused(reading: Client) -> tuple[str, list[str]]:
    """Return the responses to writes through the service that reads from the standby, and the problems."""
    responses = [
        reading.send("POST", "/heroes/", HERO),
        reading.send("POST", "/heroes/", HERO, Idempotency_Key="a"),
        reading.send("PATCH", "/heroes/1", {"age": 1}),
        reading.send("DELETE", "/heroes/1"),
    ]
    outcomes = {(response.status, response.json["detail"]) if response else (None, "") for response in responses}
    problems = [
        f"a write got {status} {detail}" for status, detail in outcomes if status != 503 or "read-only" not in detail
    ]
    return f"writes get {' and '.join(f'{status} {detail}' for status, detail in outcomes)}", problems


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield a report of 200 heroes, or 20 if `quick`, written through one service and read through the other."""
    with cluster(folder / "primary") as primary:
        migrated(primary.url)
        with cluster(folder / "standby", copy_of=primary) as standby:
            follow(primary.url)
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            reads = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=prefer-standby"
            assert is_standby(reads), "not connected to the standby"
            with (
                serving(primary.url, folder, ACCESS_LOG="off") as writing_server,
                serving(reads, folder, ACCESS_LOG="off") as reading_server,
            ):
                writing, reading = Client(writing_server.port), Client(reading_server.port)
                with probing(reading_server, "/health/ready") as probes:
                    seconds = lag(writing, reading, 20 if quick else 200)
                    problems = stale(writing, reading, standby)
                    writes, wrong = refused(reading)
                problems += wrong
                if {status for *_, status in probes} != {200}:
                    problems.append("/health/ready of the reading service isn't always 200")
                kill(standby.pid)
                gone = until(
                    lambda: (found := reading.send("GET", "/heroes/1")) is not None and found.status == 200, LIMIT
                )
                if gone > LIMIT:
                    problems.append("reads fail without the standby")
            median = statistics.median(seconds)
            figures = (
                f"{len(seconds)} heroes were read from the standby after {median * 1000:.1f} ms (median), "
                f"the slowest {max(seconds) * 1000:.0f} ms; {writes}; with the standby killed the primary "
                f"answers reads after {gone:.2f} s"
            )
            yield figures, problems
