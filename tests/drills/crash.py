"""Kill workers, and at the end the whole server, with SIGKILL while clients write."""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import psycopg

from tests.client import Response
from tests.drills.service import Client, Cluster, Report, background, databases, kill
from tests.servers import Server, serving

CLIENTS = 8
BETWEEN_KILLS = 0.5  # seconds
RESPONSES_BETWEEN_KILLS = 20
PAUSE = 0.01  # seconds between two requests of a client: the workers that start need the processor, too

# A possible state of a hero: its name and age, or None if it is deleted.
State = tuple[str, int | None] | None


@dataclass
class Bookkeeper:
    """A client that changes only the heroes it created, and records the states that each may have."""

    name: str
    client: Client
    heroes: dict[int, list[State]] = field(default_factory=dict)
    unanswered_names: set[str] = field(default_factory=set)  # created without a key: stored once or never
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    pending: tuple[str, dict[str, object]] | None = None  # the key and body of a POST to retry

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Response | None:
        """Send a request once. A status of 500 or more is a problem; return None, as without a response."""
        response = self.client.send(method, path, body, **headers)
        self.counts["unanswered" if response is None else "acknowledged"] += 1
        if response is None:
            time.sleep(0.02)
        elif response.status >= 500:
            self.problems.append(f"{method} {path}: {response.status} {response.json}")
            return None
        return response

    def hero(self) -> dict[str, object]:
        """Return a hero with a new name."""
        self.counts["heroes"] += 1
        name = f"{self.name}-{self.counts['heroes']}"
        return {"name": name, "secret_name": f"secret of {name}"}

    def created(self, response: Response) -> None:
        """Record a hero that the server created."""
        self.heroes[response.json["id"]] = [(response.json["name"], response.json["age"])]

    def create(self) -> None:
        """Create a hero without a retry."""
        hero = self.hero()
        if response := self.send("POST", "/heroes/", hero):
            self.created(response)
        else:
            self.unanswered_names.add(str(hero["name"]))

    def create_once(self) -> None:
        """Create a hero with an Idempotency-Key. Without a response, the next call retries."""
        hero = self.hero() if self.pending is None else self.pending[1]
        self.pending = (f"key-{hero['name']}", hero)
        if response := self.send("POST", "/heroes/", hero, Idempotency_Key=self.pending[0]):
            self.counts["replayed"] += response.headers.get("Idempotent-Replayed") == "true"
            self.created(response)
            self.pending = None

    def change(self, method: str, body: dict[str, object] | None, changed: State, number: int) -> None:
        """Change one hero. Without a response, it may be changed or not."""
        states = self.heroes[number]
        response = self.send(method, f"/heroes/{number}", body)
        if response is None:
            self.heroes[number] = [*states, changed]
        elif response.status == 200:
            self.heroes[number] = [changed]
        elif response.status == 404 and None in states:
            self.heroes[number] = [None]
        else:
            self.problems.append(f"{method} {number}: {response.status}, expected one of {states}")

    def patch(self, number: int) -> None:
        """Change a hero's age."""
        name = next(state[0] for state in self.heroes[number] if state)
        self.counts["ages"] += 1
        self.change("PATCH", {"age": self.counts["ages"]}, (name, self.counts["ages"]), number)

    def delete(self, number: int) -> None:
        """Delete a hero."""
        self.change("DELETE", None, None, number)

    def read(self, number: int) -> None:
        """Read a hero and compare it with the recorded states."""
        response = self.send("GET", f"/heroes/{number}")
        if response is not None:
            state = (response.json["name"], response.json["age"]) if response.status == 200 else None
            if state not in self.heroes[number]:
                self.problems.append(f"GET {number}: {state}, expected one of {self.heroes[number]}")

    def work(self, stop: Event) -> None:
        """Send random requests until `stop` is set."""
        while not stop.wait(PAUSE):
            alive = [number for number, states in self.heroes.items() if states != [None]]
            if self.pending:
                self.create_once()
            elif len(alive) < 5 or random.random() < 0.4:
                random.choice([self.create, self.create_once])()
            else:
                # The older ones are left alone, to see that they do not change.
                random.choices([self.patch, self.delete, self.read], [3, 1, 1])[0](random.choice(alive[-20:]))


def acknowledged(keepers: list[Bookkeeper]) -> int:
    """Return how many responses the clients got."""
    return sum(keeper.counts["acknowledged"] for keeper in keepers)


def stored(url: str) -> tuple[dict[int, tuple[str, int | None, str]], str]:
    """Return the rows by id, and the result of SQLite's integrity check, "ok" on PostgreSQL."""
    select = "SELECT id, name, age, secret_name FROM hero"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            [(state,)] = connection.execute("PRAGMA integrity_check")
            return {row[0]: row[1:] for row in connection.execute(select)}, state
    with psycopg.connect(url) as connection:
        return {row[0]: row[1:] for row in connection.execute(select)}, "ok"


def compare(keepers: list[Bookkeeper], rows: dict[int, tuple[str, int | None, str]]) -> list[str]:
    """Return a line for each row that contradicts the responses."""
    known = {number: states for keeper in keepers for number, states in keeper.heroes.items()}
    problems = [
        f"hero {number} is {rows.get(number)}, expected one of {states}"
        for number, states in known.items()
        if (rows[number][:2] if number in rows else None) not in states
    ]
    possible = {name for keeper in keepers for name in keeper.unanswered_names}
    problems += [f"hero {n} is unknown: {row}" for n, row in rows.items() if n not in known and row[0] not in possible]
    names = Counter(row[0] for row in rows.values())
    problems += [f"{name} is stored {count} times" for name, count in names.items() if count > 1]
    problems += [f"hero {n} is corrupt: {row}" for n, row in rows.items() if row[2] != f"secret of {row[0]}"]
    return problems


def kill_workers(server: Server, keepers: list[Bookkeeper], kills: int) -> None:
    """Kill a random worker every half second, or later, up to 5 seconds, if there are too few responses."""
    for _ in range(kills):
        before, deadline = acknowledged(keepers), time.monotonic() + 5
        time.sleep(BETWEEN_KILLS)
        while time.monotonic() < deadline and (
            acknowledged(keepers) < before + RESPONSES_BETWEEN_KILLS or not server.workers()
        ):
            time.sleep(0.05)
        random.choice(server.workers()).kill()


def drill(name: str, url: str, postgres: Cluster | None, folder: Path, kills: int) -> Report:
    """Run the drill on one database and return its report."""
    with serving(url, folder, WEB_CONCURRENCY="2", ACCESS_LOG="off") as server:
        keepers = [Bookkeeper(f"{number}", Client(server.port)) for number in range(CLIENTS)]
        with background(*(keeper.work for keeper in keepers)):
            kill_workers(server, keepers, kills)
            # The clients are still writing.
            kill(server.process.pid)
    if postgres:
        # The database stops without a checkpoint, as in a crash.
        postgres.control("-m", "immediate", "stop")
        postgres.start()
    with serving(url, folder, ACCESS_LOG="off") as server:
        for keeper in keepers:
            keeper.client = Client(server.port)
            while keeper.pending:
                keeper.create_once()
            for number in list(keeper.heroes)[-20:]:
                keeper.read(number)
    rows, state = stored(url)
    problems = [problem for keeper in keepers for problem in keeper.problems] + compare(keepers, rows)
    if state != "ok":
        problems.append(f"integrity_check: {state}")
    total = sum((keeper.counts for keeper in keepers), Counter())
    if not total["acknowledged"]:
        problems.append("no request got a response")
    figures = (
        f"{name}: {kills} workers and the server killed under {CLIENTS} clients, {total['acknowledged']} responses, "
        f"{total['unanswered']} requests without one, {total['replayed']} responses replayed, {len(rows)} heroes stored"
    )
    return figures, problems


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield a report for each database, of 30 kills, or 3 if `quick`."""
    with databases(folder) as kinds:
        for name, url, postgres in kinds:
            yield drill(name, url, postgres, folder, 3 if quick else 30)
