"""Two service hosts and two database hosts, network namespaces on one switch: one of them is cut off under load."""

import ctypes
import os
import shutil
import subprocess
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from threading import Event, Thread

import psycopg

from tests.conftest import Server
from tests.drills.failover import follow
from tests.drills.service import Client, LeftOut, Report, cluster, migrate, serving, together, workers

CLIENTS = 8
PATIENCE = 6  # seconds that a client waits for an answer: a little more than a service for a lock
LIMIT = 30  # seconds after which whatever waits has to go on
NEWNET = 0x40000000  # CLONE_NEWNET of <sched.h>
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    """Runs iproute2's ip."""
    program = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise LeftOut("needs ip (apt install iproute2)")
    subprocess.run([program, *arguments], check=True, timeout=30, capture_output=True, text=True)


@dataclass
class Host:
    """A network namespace with one address."""

    namespace: str
    address: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Lets this thread, and what it starts meanwhile, be on this host."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.namespace}") as here:
            assert LIBC.setns(here.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert LIBC.setns(before.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())


class Network:
    """A host that has a switch in it, and others with a cable to that. Addresses are the namespaces' own, so that
    networks don't meet, nor the machine's."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.name = f"heroes-{uuid.uuid4().hex[:8]}"
        self.switch = self.add("switch", 1)
        ip("-n", self.switch.namespace, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", self.switch.namespace, "address", "add", f"{self.switch.address}/24", "dev", "bridge")
        self.cable("bridge", "up")

    def add(self, name: str, number: int) -> Host:
        """A host without a cable, until the end of the stack."""
        host = Host(f"{self.name}-{name}", f"10.83.7.{number}")
        ip("netns", "add", host.namespace)
        self.stack.callback(ip, "netns", "delete", host.namespace)
        ip("-n", host.namespace, "link", "set", "lo", "up")
        return host

    def connect(self, name: str, number: int) -> Host:
        """A host on the switch."""
        host = self.add(name, number)
        switch = ["-n", self.switch.namespace, "link"]
        ip(*switch, "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        ip(*switch, "set", name, "master", "bridge")
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.namespace, "link", "set", "eth0", "up")
        self.cable(name, "up")
        return host

    def cable(self, name: str, state: str) -> None:
        """Takes the switch's end of a host's cable "up" or "down"."""
        ip("-n", self.switch.namespace, "link", "set", name, state)


@dataclass
class Writer:
    """A client that creates one hero after the other at one service, and where that doesn't, at the other."""

    name: str
    services: list[Client]
    created: list[tuple[str, int, float, float]] = field(default_factory=list)  # name, id, when asked and answered
    refused: Counter[int | None] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def create(self) -> None:
        """Creates a hero, with the same Idempotency-Key until it is answered."""
        name = f"{self.name}-{len(self.created)}"
        asked = time.monotonic()
        while time.monotonic() < asked + LIMIT:
            hero = {"name": name, "secret_name": "Dive Wilson"}
            answer = self.services[0].send("POST", "/heroes/", hero, Idempotency_Key=name)
            if answer and answer.status == 200:
                self.created.append((name, answer.body["id"], asked, time.monotonic()))
                return
            self.refused[answer.status if answer else None] += 1
            self.services.reverse()
            time.sleep(0.02)
        self.problems.append(f"{name} wasn't created in {LIMIT} s")

    def work(self, over: Event) -> None:
        """Creates heroes until it is over."""
        while not over.is_set() and not self.problems:
            self.create()


@contextmanager
def working(writers: list[Writer]) -> Iterator[None]:
    """Lets the writers work meanwhile."""
    over = Event()
    load = Thread(target=together, args=[lambda writer=writer: writer.work(over) for writer in writers])
    load.start()
    try:
        yield
    finally:
        over.set()
        load.join()


def until(done: Callable[[], bool]) -> float:
    """The seconds until something is done; infinite where that is beyond the limit."""
    started = time.monotonic()
    while not done():
        if time.monotonic() > started + LIMIT:
            return inf
        time.sleep(0.05)
    return time.monotonic() - started


def ready(server: Server, status: int) -> float:
    """The seconds until /health/ready has this status."""
    client = Client(server.port, PATIENCE, server.host)
    return until(lambda: (answer := client.send("GET", "/health/ready")) is not None and answer.status == status)


def write_to(url: str, answers: list[str]) -> None:
    """Creates a hero in a database, if it will, past all services."""
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO hero (name, secret_name) VALUES ('Deadpond', 'Dive Wilson')")
        answers.append("the primary that was cut off acknowledged a write")


def compare(writers: list[Writer], url: str) -> list[str]:
    """What isn't stored as the clients were told, or more than once."""
    stored = defaultdict(list)
    with psycopg.connect(url) as connection:
        for name, number in connection.execute("SELECT name, id FROM hero"):
            stored[name].append(number)
    problems = [problem for writer in writers for problem in writer.problems]
    problems += [
        f"{name} was acknowledged as {number}, stored is {stored[name]}"
        for writer in writers
        for name, number, _, _ in writer.created
        if stored[name] != [number]
    ]
    return problems + [f"{name} is stored {len(numbers)} times" for name, numbers in stored.items() if numbers[1:]]


def summary(writers: list[Writer], problems: list[str]) -> str:
    """What the writers were answered; too long a time without an answer is a problem."""
    created = [hero for writer in writers for hero in writer.created]
    refused = sum((writer.refused for writer in writers), Counter())
    gap = max(later - earlier for earlier, later in pairwise(sorted(answered for *_, answered in created)))
    slowest = max(answered - asked for _, _, asked, answered in created)
    if gap > LIMIT:
        problems.append(f"no hero for {gap:.1f} s")
    if unexpected := set(refused) - {503, None}:
        problems.append(f"answers other than 503: {unexpected}")
    return (
        f"{len(created)} heroes by {len(writers)} clients, none for {gap:.2f} s, {slowest:.2f} s for the slowest,"
        f" {refused[503]} requests answered 503 and {refused[None]} not at all"
    )


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yields a report for a service host and one for the primary's, with 4 seconds of load before and after each cut,
    half a one when quick."""
    load = 0.5 if quick else 4
    with ExitStack() as stack:
        try:
            network = Network(stack)
            service_hosts = [network.connect("service1", 11), network.connect("service2", 12)]
            first, second = network.connect("database1", 21), network.connect("database2", 22)
        except subprocess.CalledProcessError as error:
            raise LeftOut(f"needs leave to make network namespaces: {error.stderr.strip()}") from None

        with first.inside():
            primary = stack.enter_context(cluster(folder / "primary", address=first.address))
        with second.inside():
            standby = stack.enter_context(cluster(folder / "standby", primary, second.address))
        stack.enter_context(network.switch.inside())
        migrate(primary.url)
        follow(primary.url)
        hosts = f"{primary.address}:{primary.port},{standby.address}:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres"
        servers: list[Server] = []
        for host in service_hosts:
            with host.inside():
                gunicorn = serving(url, folder, address=host.address, WEB_CONCURRENCY="2", ACCESS_LOG="off")
                servers.append(stack.enter_context(gunicorn))
        processes = [worker.pid for server in servers for worker in workers(server)]

        def writers(case: str) -> list[Writer]:
            clients = [[Client(server.port, PATIENCE, server.host) for server in servers] for _ in range(CLIENTS)]
            return [
                Writer(f"{case}-{number}", both if number % 2 else both[::-1]) for number, both in enumerate(clients)
            ]

        separated = writers("service")
        with working(separated):
            time.sleep(load)
            network.cable("service1", "down")
            with service_hosts[0].inside():
                unready = ready(servers[0], 503)
            time.sleep(load)
            network.cable("service1", "up")
            back = ready(servers[0], 200)
            returned = Writer("returned", [Client(servers[0].port, PATIENCE, servers[0].host)])
            returned.create()
            time.sleep(load)
        problems = compare([*separated, returned], primary.url)
        if max(unready, back) == inf:
            problems.append("/health/ready doesn't say whether the database is there")
        yield (
            f"a service host cut off: {summary(separated, problems)}; its /health/ready 503 after {unready:.1f} s, "
            f"200 again {back:.1f} s after it was back",
            problems,
        )

        abandoned = writers("primary")
        acknowledged: list[str] = []
        with working(abandoned):
            time.sleep(load)
            network.cable("database1", "down")
            standby.control("-w", "promote")
            promoted = time.monotonic()
            with first.inside():
                Thread(target=write_to, args=[primary.url, acknowledged], daemon=True).start()
            until(lambda: any(answered > promoted for writer in abandoned for *_, answered in writer.created[-1:]))
            time.sleep(load)
        problems = acknowledged + compare([*separated, returned, *abandoned], standby.url)
        if processes != [worker.pid for server in servers for worker in workers(server)]:
            problems.append("a worker was started anew")
        yield f"the primary's host cut off, its standby promoted: {summary(abandoned, problems)}", problems
