"""Four server processes, and clients that want the same heroes at the same time."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

from tests.drills.service import Answer, Client, Report, databases, serving, together

PROCESSES = 4
WRITERS = 8


def expect(problems: list[str], answer: Answer | None, *statuses: int) -> int:
    """The status of an answer; it is a problem where that isn't one of these."""
    status = answer.status if answer else 0
    if status not in statuses:
        problems.append(f"{status} {answer.body if answer else 'no answer'}")
    return status


def create(client: Client) -> int:
    """The id of a new hero, whose age is 0."""
    answer = client.send("POST", "/heroes/", {"name": "Deadpond", "secret_name": "Dive Wilson", "age": 0})
    assert answer is not None
    return int(answer.body["id"])


def write(port: int, seconds: int, problems: list[str]) -> tuple[int, float]:
    """Eight clients that write as fast as they can: how many writes there were, and the seconds the slowest took."""
    taken: list[float] = []

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
            taken.append(time.monotonic() - started)

    together(*[writer] * WRITERS)
    return len(taken), max(taken)


def count(port: int, increments: int, problems: list[str]) -> int:
    """Clients that increment one hero's age, each time the one they read: how often they had to try again."""
    number = create(Client(port))
    retries: list[int] = []

    def counter() -> None:
        client = Client(port)
        for _ in range(increments):
            status = 412
            while status == 412:
                hero = client.send("GET", f"/heroes/{number}")
                assert hero is not None
                change = {"age": hero.body["age"] + 1}
                answer = client.send("PATCH", f"/heroes/{number}", change, If_Match=hero.headers["ETag"])
                status = expect(problems, answer, 200, 412)
                retries.append(status == 412)

    together(*[counter] * PROCESSES)
    final = Client(port).send("GET", f"/heroes/{number}")
    if final is None or final.body["age"] != PROCESSES * increments:
        problems.append(f"counted to {final and final.body['age']}, not to {PROCESSES * increments}")
    return sum(retries)


def delete(port: int, rounds: int, problems: list[str]) -> None:
    """Two clients that change and two that delete one hero at the same moment: exactly one deletes it."""
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
    """Yields a report for each database: 30 seconds of writing, of 2 when quick, and the races.

    A writer that has to wait for as long, or for the 5 seconds that are the default, is refused, which is a problem."""
    seconds, increments, rounds = (2, 15, 30) if quick else (30, 250, 300)
    environment = {
        "WEB_CONCURRENCY": str(PROCESSES),
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
                f"{PROCESSES * increments} increments with If-Match, {retries} tried again; "
                f"{rounds} races of PATCH and DELETE"
            )
            yield figures, problems
