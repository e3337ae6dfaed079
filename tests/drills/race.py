"""Several server processes, and clients that compete for the same heroes."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

from tests.client import Response
from tests.constants import HERO
from tests.drills.service import Client, Report, databases, together
from tests.servers import serving

COUNTERS = 4
WRITERS = 8


def expect(problems: list[str], response: Response | None, *statuses: int) -> int:
    """Return the status of a response; append it to `problems` unless it is one of `statuses`."""
    status = response.status if response else 0
    if status not in statuses:
        problems.append(f"{status} {response.json if response else 'no answer'}")
    return status


def create(client: Client) -> int:
    """Create a hero of age 0 and return its id."""
    response = client.send("POST", "/heroes/", HERO | {"age": 0})
    assert response is not None
    return int(response.json["id"])


def write(port: int, seconds: int, problems: list[str]) -> tuple[int, float]:
    """Write with eight clients as fast as they can; return the number of writes and the seconds of the slowest."""
    durations: list[float] = []

    def writer() -> None:
        client = Client(port)
        number = create(client)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            started = time.monotonic()
            if random.random() < 0.5:
                expect(problems, client.send("PATCH", f"/heroes/{number}", {"age": random.randrange(1000)}), 200)
            else:
                expect(problems, client.send("POST", "/heroes/", {"name": "a", "secret_name": "b"}), 200)
            durations.append(time.monotonic() - started)

    together(*[writer] * WRITERS)
    return len(durations), max(durations)


def count(port: int, increments: int, problems: list[str]) -> int:
    """Increment one hero's age with several clients and If-Match; return the number of retries."""
    number = create(Client(port))
    retries: list[int] = []

    def counter() -> None:
        client = Client(port)
        for _ in range(increments):
            status = 412
            while status == 412:
                hero = client.send("GET", f"/heroes/{number}")
                assert hero is not None
                change = {"age": hero.json["age"] + 1}
                response = client.send("PATCH", f"/heroes/{number}", change, If_Match=hero.headers["ETag"])
                status = expect(problems, response, 200, 412)
                retries.append(status == 412)

    together(*[counter] * COUNTERS)
    final = Client(port).send("GET", f"/heroes/{number}")
    if final is None or final.json["age"] != COUNTERS * increments:
        problems.append(f"counted to {final and final.json['age']}, not to {COUNTERS * increments}")
    return sum(retries)


def delete(port: int, rounds: int, problems: list[str]) -> None:
    """Change each hero with two clients while two delete it: exactly one DELETE may succeed."""
    numbers = [create(Client(port)) for _ in range(rounds)]
    barrier = Barrier(4)
    deleted: list[int] = []

    def deleter() -> None:
        client = Client(port)
        for number in numbers:
            barrier.wait(60)
            if expect(problems, client.send("DELETE", f"/heroes/{number}"), 200, 404) == 200:
                deleted.append(number)

    def patcher() -> None:
        client = Client(port)
        for number in numbers:
            barrier.wait(60)
            expect(problems, client.send("PATCH", f"/heroes/{number}", {"name": "Spider-Boy"}), 200, 404)

    together(deleter, deleter, patcher, patcher)
    times = Counter(deleted)
    problems += [f"hero {number} was deleted {times[number]} times" for number in numbers if times[number] != 1]


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield a report for each database: 30 seconds of writing to 4 processes, or 2 to 2 if `quick`, and the races.

    A writer that has to wait for as long, or for the default of 5 seconds, is refused, which is a problem.
    """
    processes, seconds, increments, rounds = (2, 2, 10, 20) if quick else (4, 30, 250, 300)
    environment = {
        "WEB_CONCURRENCY": str(processes),
        "ACCESS_LOG": "off",
        "DATABASE_TIMEOUT": str(min(seconds, 5)),
    }
    with databases(folder) as kinds:
        for name, url, _ in kinds:
            problems: list[str] = []
            with serving(url, folder, **environment) as server:
                writes, slowest = write(server.port, seconds, problems)
                retries = count(server.port, increments, problems)
                delete(server.port, rounds, problems)
            figures = (
                f"{name}: {writes} writes by {WRITERS} clients in {seconds} s, the slowest {slowest * 1000:.0f} ms; "
                f"{COUNTERS * increments} increments with If-Match, {retries} retries; "
                f"{rounds} races of PATCH and DELETE"
            )
            yield figures, problems
