"""Cut off a service host and the primary's host under load. The hosts are network namespaces on one switch."""

import ctypes
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from threading import Event, Thread

import psycopg

from tests.databases import migrated
from tests.drills.failover import follow
from tests.drills.service import Client, LeftOut, Report, background, cluster
from tests.drills.writers import RETRY, TIMEOUT, Writer, compare, probing, ready, summary, until, working
from tests.servers import Server, serving

WORKERS, THREADS = 2, 3
CLIENTS = 8
READERS = 12  # on the service host that is cut off
CUT = 8  # seconds
NOTICE_LIMIT = 3  # seconds until the cut is noticed, and the probes are answered: TCP takes up to 2
PROBE_LIMIT = 2  # seconds that a probe may take from then on
BACK_LIMIT = 5  # seconds until /health/ready is 200 again
NEWNET = 0x40000000  # CLONE_NEWNET of <sched.h>
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    """Run iproute2's ip."""
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
        """Run this thread, and the processes that it starts, on this host."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.namespace}") as here:
            assert LIBC.setns(here.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert LIBC.setns(before.fileno(), NEWNET) == 0, os.strerror(ctypes.get_errno())


class Network:
    """Hosts on one switch, which is a host itself.

    Addresses belong to a namespace, so they can't conflict with other networks or the machine's.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.name = f"heroes-{uuid.uuid4().hex[:8]}"
        self.switch = self.add("switch", 1)
        ip("-n", self.switch.namespace, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", self.switch.namespace, "address", "add", f"{self.switch.address}/24", "dev", "bridge")
        self.cable("bridge", "up")

    def add(self, name: str, number: int) -> Host:
        """Add a host without a cable. The end of the stack deletes it."""
        host = Host(f"{self.name}-{name}", f"10.83.7.{number}")
        ip("netns", "add", host.namespace)
        self.stack.callback(ip, "netns", "delete", host.namespace)
        ip("-n", host.namespace, "link", "set", "lo", "up")
        return host

    def connect(self, name: str, number: int) -> Host:
        """Add a host on the switch."""
        host = self.add(name, number)
        switch = ["-n", self.switch.namespace, "link"]
        ip(*switch, "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        ip(*switch, "set", name, "master", "bridge")
        ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.namespace, "link", "set", "eth0", "up")
        self.cable(name, "up")
        return host

    def cable(self, name: str, state: str) -> None:
        """Set the switch's end of a host's cable "up" or "down"."""
        ip("-n", self.switch.namespace, "link", "set", name, state)


def write_to(url: str, problems: list[str]) -> None:
    """Create a hero directly in a database; append to `problems` if it is acknowledged."""
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO hero (name, secret_name) VALUES ('Deadpond', 'Dive Wilson')")
        problems.append("the primary that was cut off acknowledged a write")


def all_wait(url: str, service: Host) -> bool:
    """Return whether all threads of a service wait for a lock, except two that may answer the probes."""
    with psycopg.connect(url) as connection:
        [(waiting,)] = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND client_addr = %s::inet",
            [service.address],
        ).fetchall()
    return int(waiting) >= WORKERS * THREADS - 2


@contextmanager
def reading(server: Server) -> Iterator[None]:
    """Run more reading clients in the background than the service has threads."""

    def read(stop: Event) -> None:
        client = Client(server.port, TIMEOUT, server.host)
        while not stop.wait(RETRY):
            client.send("GET", "/heroes/?limit=1")

    with background(*[read] * READERS):
        yield


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield a report for a service host and one for the primary's.

    The load lasts 4 seconds before and after each cut, or half a second if `quick`.
    """
    load = 0.5 if quick else 4
    with ExitStack() as stack:
        try:
            network = Network(stack)
            service_hosts = [network.connect("service1", 11), network.connect("service2", 12)]
            first, second = network.connect("database1", 21), network.connect("database2", 22)
        except subprocess.CalledProcessError as error:
            raise LeftOut(f"needs permission to create network namespaces: {error.stderr.strip()}") from None

        with first.inside():
            primary = stack.enter_context(cluster(folder / "primary", address=first.address))
        with second.inside():
            standby = stack.enter_context(cluster(folder / "standby", primary, second.address))
        stack.enter_context(network.switch.inside())
        migrated(primary.url)
        follow(primary.url)
        hosts = f"{primary.address}:{primary.port},{standby.address}:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres"
        servers: list[Server] = []
        environment = {"WEB_CONCURRENCY": str(WORKERS), "GUNICORN_THREADS": str(THREADS), "ACCESS_LOG": "off"}
        for host in service_hosts:
            with host.inside():
                gunicorn = serving(url, folder, address=host.address, **environment)
                servers.append(stack.enter_context(gunicorn))
        processes = [worker.pid for server in servers for worker in server.workers()]

        def writers(case: str) -> list[Writer]:
            clients = [[Client(server.port, TIMEOUT, server.host) for server in servers] for _ in range(CLIENTS)]
            return [
                Writer(f"{case}-{number}", both if number % 2 else both[::-1]) for number, both in enumerate(clients)
            ]

        separated = writers("service")
        with ExitStack() as load_of_services:
            load_of_services.enter_context(working(separated))
            with service_hosts[0].inside():
                live, readiness = (
                    load_of_services.enter_context(probing(servers[0], path))
                    for path in ("/health/live", "/health/ready")
                )
                load_of_services.enter_context(reading(servers[0]))
            time.sleep(load)
            # Every thread waits for a response that never arrives after the cut.
            with psycopg.connect(primary.url) as connection:
                connection.execute("LOCK TABLE hero")
                until(partial(all_wait, primary.url, service_hosts[0]))
                cut = time.monotonic()
                network.cable("service1", "down")
            time.sleep(CUT)
            network.cable("service1", "up")
            back = ready(servers[0], 200)
            returned = Writer("returned", [Client(servers[0].port, TIMEOUT, servers[0].host)])
            returned.create()
            time.sleep(load)
        problems = compare([*separated, returned], primary.url)
        live, readiness = ([p for p in probes if cut < p[1] and p[0] < cut + CUT] for probes in (live, readiness))
        unready = next((answered - cut for _, answered, status in readiness if status == 503), inf)
        noticed = [p for probes in (live, readiness) for p in probes if p[0] > cut + NOTICE_LIMIT]
        settled = max((answered - asked for asked, answered, _ in noticed), default=inf)
        slowest = [max(answered - max(asked, cut) for asked, answered, _ in probes) for probes in (live, readiness)]
        if any(status != 200 for *_, status in live):
            problems.append("/health/live isn't always 200")
        if any(asked > cut + unready and status != 503 for asked, _, status in readiness):
            problems.append("/health/ready isn't 503 until the host is back")
        if max(*slowest, unready) > NOTICE_LIMIT or settled > PROBE_LIMIT or back > BACK_LIMIT:
            problems.append("/health/live or /health/ready is late")
        yield (
            f"a service host cut off: {summary(separated, problems)}; its /health/live takes up to "
            f"{slowest[0]:.1f} s and /health/ready {slowest[1]:.1f} s, later {settled:.1f} s; the latter is 503 after "
            f"{unready:.1f} s and 200 again {back:.1f} s after the host is back",
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
        if processes != [worker.pid for server in servers for worker in server.workers()]:
            problems.append("a worker was restarted")
        yield f"the primary's host cut off, its standby promoted: {summary(abandoned, problems)}", problems
