"""Clients that create heroes and retry with the same Idempotency-Key, and a check of what is stored afterwards."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from threading import Event

import psycopg

from tests.constants import HERO
from tests.drills.service import Client, background
from tests.servers import Server

TIMEOUT = 6  # seconds that a client waits for a response: a little longer than the service waits for a lock
LIMIT = 30  # seconds until requests must be served again
PROBE_TIMEOUT = 10  # seconds that a probe waits: much longer than it should take, to measure it
RETRY = 0.05  # seconds between a refused request and the next
PAUSE = 0.02  # seconds between a created hero and the next: the machine has other work, such as the failover

# When a probe was sent and answered, and its status, or None without a response.
Probe = tuple[float, float, int | None]


@dataclass
class Writer:
    """A client that creates one hero after the other, and sends each retry to its next service."""

    name: str
    services: list[Client]
    created: list[tuple[str, int, float, float]] = field(default_factory=list)  # name, id, when asked and answered
    refused: Counter[int | None] = field(default_factory=Counter)  # by status, or None without a response
    problems: list[str] = field(default_factory=list)

    def create(self) -> None:
        """Create a hero; retry with the same Idempotency-Key until it is created."""
        name = f"{self.name}-{len(self.created)}"
        asked = time.monotonic()
        while time.monotonic() < asked + LIMIT:
            response = self.services[0].send("POST", "/heroes/", HERO | {"name": name}, Idempotency_Key=name)
            if response and response.status == 200:
                self.created.append((name, response.json["id"], asked, time.monotonic()))
                return
            self.refused[response.status if response else None] += 1
            self.services.append(self.services.pop(0))
            time.sleep(RETRY)
        self.problems.append(f"{name} wasn't created in {LIMIT} s")

    def work(self, stop: Event) -> None:
        """Create heroes until `stop` is set."""
        while not stop.wait(PAUSE) and not self.problems:
            self.create()


@contextmanager
def working(writers: list[Writer]) -> Iterator[None]:
    """Run the writers in the background."""
    with background(*(writer.work for writer in writers)):
        yield


@contextmanager
def probing(server: Server, path: str) -> Iterator[list[Probe]]:
    """Request `path` ten times a second in the background."""
    probes: list[Probe] = []

    def probe(stop: Event) -> None:
        client = Client(server.port, PROBE_TIMEOUT, server.host)
        while not stop.wait(0.1):
            asked = time.monotonic()
            response = client.send("GET", path)
            probes.append((asked, time.monotonic(), response.status if response else None))

    with background(probe):
        yield probes


def until(done: Callable[[], bool], limit: float = LIMIT) -> float:
    """Return the seconds until `done` returns true, or infinity after `limit` seconds."""
    started = time.monotonic()
    while not done():
        if time.monotonic() > started + limit:
            return inf
        time.sleep(0.05)
    return time.monotonic() - started


def ready(server: Server, status: int) -> float:
    """Return the seconds until /health/ready has this status."""
    client = Client(server.port, TIMEOUT, server.host)
    return until(lambda: (response := client.send("GET", "/health/ready")) is not None and response.status == status)


def compare(writers: list[Writer], url: str) -> list[str]:
    """Return a line for each hero that isn't stored as acknowledged, or is stored more than once."""
    stored = defaultdict(list)
    with psycopg.connect(url) as connection:
        for name, number in connection.execute("SELECT name, id FROM hero"):
            stored[name].append(number)
    problems = [problem for writer in writers for problem in writer.problems]
    problems += [
        f"{name} was acknowledged as {number}, but is stored as {stored[name]}"
        for writer in writers
        for name, number, _, _ in writer.created
        if stored[name] != [number]
    ]
    return problems + [f"{name} is stored {len(numbers)} times" for name, numbers in stored.items() if numbers[1:]]


def gap(writers: list[Writer]) -> tuple[float, float]:
    """Return the start and the end of the longest time without an acknowledged write."""
    moments = sorted(answered for writer in writers for *_, answered in writer.created)
    return max(pairwise(moments), key=lambda pair: pair[1] - pair[0])


def summary(writers: list[Writer], problems: list[str], limit: float = LIMIT) -> str:
    """Return the figures of the writers; append to `problems` a gap beyond `limit` and unexpected responses."""
    created = [hero for writer in writers for hero in writer.created]
    refused = sum((writer.refused for writer in writers), Counter())
    start, end = gap(writers)
    slowest = max(answered - asked for _, _, asked, answered in created)
    if end - start > limit:
        problems.append(f"no hero created for {end - start:.1f} s")
    if unexpected := set(refused) - {503, None}:
        problems.append(f"responses other than 503: {unexpected}")
    return (
        f"{len(created)} heroes by {len(writers)} clients, a gap of {end - start:.2f} s, the slowest {slowest:.2f} s, "
        f"{refused[503]} requests with 503 and {refused[None]} without a response"
    )
