"""Workers, and at the end the whole server, are killed with -9 while clients write."""

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

from tests.conftest import Server
from tests.drills.service import Answer, Client, Cluster, Report, databases, kill, serving, together, workers

CLIENTS = 8
BETWEEN_KILLS = 0.5  # seconds
ANSWERS_BETWEEN = 20

# What can be stored of a hero: its name and age, or None where it is gone.
State = tuple[str, int | None] | None


@dataclass
class Bookkeeper:
    """A client that changes heroes of its own and writes down what must be stored; no other client touches them."""

    name: str
    client: Client
    heroes: dict[int, list[State]] = field(default_factory=dict)
    unanswered_names: set[str] = field(default_factory=set)  # created without a key: once or never
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    pending: tuple[str, dict[str, object]] | None = None  # the key and body of a creation that is still retried

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Answer | None:
        """Sends once; no answer is counted, an answer from 500 up is a problem and counts as none."""
        answer = self.client.send(method, path, body, **headers)
        self.counts["unanswered" if answer is None else "acknowledged"] += 1
        if answer is None:
            time.sleep(0.02)
        elif answer.status >= 500:
            self.problems.append(f"{method} {path}: {answer.status} {answer.body}")
            return None
        return answer

    def hero(self) -> dict[str, object]:
        """A hero that nobody created yet."""
        self.counts["heroes"] += 1
        name = f"{self.name}-{self.counts['heroes']}"
        return {"name": name, "secret_name": f"secret of {name}"}

    def created(self, answer: Answer) -> None:
        """Writes down a hero that the server says it has."""
        self.heroes[answer.body["id"]] = [(answer.body["name"], answer.body["age"])]

    def create(self) -> None:
        """Creates a hero and doesn't try again."""
        hero = self.hero()
        if answer := self.send("POST", "/heroes/", hero):
            self.created(answer)
        else:
            self.unanswered_names.add(str(hero["name"]))

    def create_once(self) -> None:
        """Creates a hero with an Idempotency-Key; as long as there is no answer the next call tries again."""
        hero = self.hero() if self.pending is None else self.pending[1]
        self.pending = (f"key-{hero['name']}", hero)
        if answer := self.send("POST", "/heroes/", hero, Idempotency_Key=self.pending[0]):
            self.counts["replayed"] += answer.headers.get("Idempotent-Replayed") == "true"
            self.created(answer)
            self.pending = None

    def change(self, method: str, body: dict[str, object] | None, becomes: State, number: int) -> None:
        """Sends a change of one hero: without an answer it is what it was, or what it becomes."""
        states = self.heroes[number]
        answer = self.send(method, f"/heroes/{number}", body)
        if answer is None:
            self.heroes[number] = [*states, becomes]
        elif answer.status == 200:
            self.heroes[number] = [becomes]
        elif answer.status == 404 and None in states:
            self.heroes[number] = [None]
        else:
            self.problems.append(f"{method} {number}: {answer.status}, expected one of {states}")

    def patch(self, number: int) -> None:
        """Gives a hero another age."""
        name = next(state[0] for state in self.heroes[number] if state)
        self.counts["ages"] += 1
        self.change("PATCH", {"age": self.counts["ages"]}, (name, self.counts["ages"]), number)

    def delete(self, number: int) -> None:
        """Deletes a hero."""
        self.change("DELETE", None, None, number)

    def read(self, number: int) -> None:
        """Compares what is answered with what must be stored."""
        answer = self.send("GET", f"/heroes/{number}")
        if answer is not None:
            state = (answer.body["name"], answer.body["age"]) if answer.status == 200 else None
            if state not in self.heroes[number]:
                self.problems.append(f"GET {number}: {state}, expected one of {self.heroes[number]}")

    def work(self, over: Event) -> None:
        """Does one of the above after the other, until it is over."""
        while not over.is_set():
            alive = [number for number, states in self.heroes.items() if states != [None]]
            if self.pending:
                self.create_once()
            elif len(alive) < 5 or random.random() < 0.4:
                random.choice([self.create, self.create_once])()
            else:
                # One of the latest: the others rest, and so must last.
                random.choices([self.patch, self.delete, self.read], [3, 1, 1])[0](random.choice(alive[-20:]))


def acknowledged(keepers: list[Bookkeeper]) -> int:
    """How many answers the clients got."""
    return sum(keeper.counts["acknowledged"] for keeper in keepers)


def stored(url: str) -> tuple[dict[int, tuple[str, int | None, str]], str]:
    """The rows by id, and what the database says of its own state."""
    select = "SELECT id, name, age, secret_name FROM hero"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            [(state,)] = connection.execute("PRAGMA integrity_check")
            return {row[0]: row[1:] for row in connection.execute(select)}, state
    with psycopg.connect(url) as connection:
        return {row[0]: row[1:] for row in connection.execute(select)}, "ok"


def compare(keepers: list[Bookkeeper], rows: dict[int, tuple[str, int | None, str]]) -> list[str]:
    """What of the rows isn't as the clients were told."""
    known = {number: states for keeper in keepers for number, states in keeper.heroes.items()}
    problems = [
        f"hero {number} is {rows.get(number)}, expected one of {states}"
        for number, states in known.items()
        if (rows[number][:2] if number in rows else None) not in states
    ]
    may_be = {name for keeper in keepers for name in keeper.unanswered_names}
    problems += [f"hero {n} is nobody's: {row}" for n, row in rows.items() if n not in known and row[0] not in may_be]
    names = Counter(row[0] for row in rows.values())
    problems += [f"{name} is there {count} times" for name, count in names.items() if count > 1]
    problems += [f"hero {n} is half: {row}" for n, row in rows.items() if row[2] != f"secret of {row[0]}"]
    return problems


def kill_workers(server: Server, keepers: list[Bookkeeper], kills: int) -> None:
    """Kills a random worker every half second, or later, where that is less than it takes until many are answered."""
    for _ in range(kills):
        before, deadline = acknowledged(keepers), time.monotonic() + 5
        time.sleep(BETWEEN_KILLS)
        while time.monotonic() < deadline and (acknowledged(keepers) < before + ANSWERS_BETWEEN or not workers(server)):
            time.sleep(0.05)
        random.choice(workers(server)).kill()


def drill(name: str, url: str, postgres: Cluster | None, folder: Path, kills: int) -> Report:
    """The drill on one database."""
    over = Event()
    with serving(url, folder, WEB_CONCURRENCY="2", ACCESS_LOG="off") as server:
        keepers = [Bookkeeper(f"{number}", Client(server.port)) for number in range(CLIENTS)]

        def crash() -> None:
            kill_workers(server, keepers, kills)
            # While the clients still write.
            kill(server.process.pid)
            over.set()

        together(crash, *(lambda keeper=keeper: keeper.work(over) for keeper in keepers))
    if postgres:
        # The database too stops without a goodbye.
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
        problems.append("no request was answered")
    figures = (
        f"{name}: {kills} workers and the server killed under {CLIENTS} clients, {total['acknowledged']} answers, "
        f"{total['unanswered']} requests without one, {total['replayed']} answers replayed, {len(rows)} heroes stored"
    )
    return figures, problems


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yields the report of 30 kills on each database, of 3 when quick."""
    with databases(folder) as kinds:
        for name, url, postgres in kinds:
            yield drill(name, url, postgres, folder, 3 if quick else 30)
