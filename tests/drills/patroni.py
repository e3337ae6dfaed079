"""Three nodes of PostgreSQL, Patroni and etcd fail in turn under write load.

The nodes run deploy/patroni.yml and deploy/etcd.env, each on its own loopback address. Only the
addresses and the paths in them are replaced.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.constants import ROOT
from tests.databases import migrated
from tests.drills.service import (
    BIN,
    USER,
    Client,
    Cluster,
    LeftOut,
    Report,
    kill,
)
from tests.drills.writers import Probe, Writer, compare, gap, probing, summary, until, working
from tests.servers import serving

CLIENTS = 4
# Limits of the seconds without a write on a busy machine; docs/high-availability.md has the usual figures.
FAILOVER = 30
PLANNED = 10
TTL = 20  # seconds, the primary's lease in deploy/patroni.yml
# A user other than root needs a capability to read a Python in root's home.
UNPRIVILEGED = [
    *["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"],
    *["--inh-caps=+dac_override", "--ambient-caps=+dac_override"],
]


@dataclass
class Node:
    """One of the three machines: an address on which etcd, Patroni and PostgreSQL run."""

    number: int
    network: str  # the first three bytes of the address, with a dot at the end
    folder: Path
    quick: bool  # Patroni's loop_wait is 1 second, not 5
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in both configurations."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """The address in both configurations."""
        return f"{self.network}1{self.number}"

    def configuration(self, file: str) -> str:
        """Return deploy/`file`, written for node 1, with this node's name, address and paths."""
        lines = (ROOT / "deploy" / file).read_text().splitlines()
        text = "\n".join(
            # A line with all addresses is the same on all nodes.
            line
            if "10.0.0.12" in line
            else line.replace("10.0.0.11", f"10.0.0.1{self.number}").replace("node1", self.name)
            for line in lines
        )
        replacements = {
            "10.0.0.0/24": "127.0.0.0/8",
            "10.0.0.": self.network,
            "/var/lib/postgresql/heroes": str(self.folder / "data"),
            "/var/lib/postgresql": str(self.folder),
            "/usr/lib/postgresql/17/bin": str(BIN),
            "/var/run/postgresql": str(self.folder),
            "/var/lib/etcd": str(self.folder / "etcd"),
        }
        if self.quick:
            replacements["loop_wait: 5"] = "loop_wait: 1"
        for old, new in replacements.items():
            text = text.replace(old, new)
        return text

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start a process and append its output to a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def start_etcd(self) -> None:
        """Start etcd with deploy/etcd.env as its environment."""
        lines = self.configuration("etcd.env").splitlines()
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        self.start("etcd", ["etcd"], {"PATH": os.environ["PATH"], **settings})

    def start_patroni(self) -> None:
        """Start Patroni, which starts PostgreSQL. As root, run both as USER: PostgreSQL refuses root."""
        (self.folder / "patroni.yml").write_text(self.configuration("patroni.yml"))
        command = [sys.executable, "-m", "patroni", str(self.folder / "patroni.yml")]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        self.start("patroni", [*UNPRIVILEGED, *command] if os.geteuid() == 0 else command, environment)

    def kill(self, name: str) -> None:
        """Kill etcd or Patroni with SIGKILL, but not its child processes."""
        self.processes[name].kill()
        self.processes[name].wait()

    def kill_postgres(self) -> None:
        """Kill PostgreSQL with SIGKILL."""
        kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))

    def stop(self) -> None:
        """Kill all processes of the node."""
        for name in self.processes:
            self.kill(name)
        with suppress(OSError, psutil.NoSuchProcess):
            self.kill_postgres()

    def get(self, port: int, path: str, body: bytes | None = None) -> Any:
        """Return the JSON response of Patroni (8008) or etcd (2379), or {} without one."""
        url = f"http://{self.address}:{port}{path}"
        with suppress(OSError, ValueError), urllib.request.urlopen(url, body, timeout=2) as response:
            return json.load(response)
        return {}


@dataclass
class Patroni:
    """The three nodes."""

    nodes: list[Node]

    @property
    def hosts(self) -> str:
        """All addresses, in the format of DATABASE_URL."""
        return ",".join(f"{node.address}:5432" for node in self.nodes)

    @property
    def primary(self) -> Node:
        """The node that holds the lease and accepts writes."""
        return next(node for node in self.nodes if node.get(8008, "/primary"))

    @property
    def etcd_leader(self) -> Node:
        """The node whose etcd is the leader."""
        answers = {node.number: node.get(2379, "/v3/maintenance/status", b"{}") for node in self.nodes}
        return next(
            node for node in self.nodes if (a := answers[node.number]) and a["leader"] == a["header"]["member_id"]
        )

    def healthy(self) -> bool:
        """Return whether there is a primary with two standbys, of which each commit waits for one."""
        url = f"postgresql://postgres:change-me-super@{self.hosts}/postgres?target_session_attrs=read-write"
        with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2) as connection:
            states = connection.execute("SELECT state, sync_state FROM pg_stat_replication").fetchall()
            return states == [("streaming", "quorum")] * 2
        return False

    def control(self, *arguments: str) -> None:
        """Run patronictl, the command that operators use."""
        command = Path(sys.executable).with_name("patronictl")
        configuration = self.nodes[0].folder / "patroni.yml"
        subprocess.run(
            [command, "-c", configuration, *arguments, "--force"], check=True, timeout=60, capture_output=True
        )


@contextmanager
def cluster(folder: Path, quick: bool) -> Iterator[Patroni]:
    """Run three nodes during the block."""
    missing = [name for name in ("etcd", "setpriv") if shutil.which(name) is None]
    if missing or find_spec("patroni") is None:
        raise LeftOut(
            "needs etcd (apt install etcd-server), setpriv (util-linux) and Patroni (pip install patroni[etcd3])"
        )
    # A random network in 127.0.0.0/8, so that concurrent drills do not share addresses.
    network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}."
    nodes = [Node(number, network, folder / f"node{number}", quick) for number in (1, 2, 3)]
    with ExitStack() as stack:
        for node in nodes:
            Cluster(node.folder).prepare()
            stack.callback(node.stop)
            node.start_etcd()
        for node in nodes:
            node.start_patroni()
        patroni = Patroni(nodes)
        assert until(patroni.healthy, 90) < 90, "\n".join(
            (node.folder / "patroni.log").read_text()[-2000:] for node in nodes
        )
        yield patroni


def create_database(patroni: Patroni) -> str:
    """Create the service's role and database as in docs/high-availability.md; return the DATABASE_URL."""
    administrator = f"postgresql://postgres:change-me-super@{patroni.primary.address}/postgres"
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute("CREATE ROLE heroes LOGIN PASSWORD 'change-me-heroes'")
        connection.execute("CREATE DATABASE heroes OWNER heroes")
    url = f"postgresql://heroes:change-me-heroes@{patroni.hosts}/heroes"
    migrated(url)
    return url


def wrong_probes(probes: list[Probe], start: float, end: float) -> list[str]:
    """Return the wrong responses of /health/ready, if no write was acknowledged from `start` to `end`.

    It may be a second late at both ends.
    """
    problems = []
    for asked, answered, status in probes:
        when = f"/health/ready at {asked - start:+.1f} s in a gap of {end - start:.1f} s"
        if status is None:
            problems.append(f"{when}: no response in {answered - asked:.1f} s")
        elif status == 503 and (answered < start or asked > end + 1):
            problems.append(f"{when}: 503")
        elif status == 200 and start + 1 < asked and answered < end - 1:
            problems.append(f"{when}: 200")
    return problems


def all_wrote(writers: list[Writer], before: list[int]) -> bool:
    """Return whether each writer created at least two more heroes: the first may have been in progress."""
    return all(len(writer.created) > count + 1 for writer, count in zip(writers, before, strict=True))


def run(folder: Path, quick: bool) -> Iterator[Report]:
    """Yield a report for each failure, with 3 seconds of load before and after it.

    If `quick`, only for a crash of PostgreSQL and a switchover, with half a second of load.
    """
    load = 0.5 if quick else 3
    with cluster(folder, quick) as patroni:
        url = create_database(patroni)

        def crash() -> None:
            patroni.primary.kill_postgres()

        def lose_machine() -> None:
            lost = patroni.primary
            lost.kill("patroni")
            lost.kill_postgres()
            until(lambda: any(node.get(8008, "/primary") for node in patroni.nodes if node is not lost))
            time.sleep(load)
            lost.start_patroni()

        def restart_patroni() -> None:
            primary = patroni.primary
            primary.kill("patroni")
            time.sleep(1)  # as systemd does
            primary.start_patroni()
            time.sleep(TTL + 2)

        def switch_over() -> None:
            patroni.control("switchover", "heroes")

        def restart() -> None:
            former = patroni.primary.name
            patroni.control("restart", "heroes", "--role", "replica")
            until(patroni.healthy, 60)
            switch_over()
            until(patroni.healthy, 60)
            patroni.control("restart", "heroes", former)

        def lose_etcd() -> None:
            lost = patroni.etcd_leader
            lost.kill("etcd")
            time.sleep(10)
            lost.start_etcd()

        def lose_all_etcd() -> None:
            for node in patroni.nodes:
                node.kill("etcd")
            time.sleep(TTL + 10)
            for node in patroni.nodes:
                node.start_etcd()

        steps: list[tuple[str, float, Callable[[], None]]] = [
            ("patronictl switchover", PLANNED, switch_over),
            ("PostgreSQL of the primary killed", FAILOVER, crash),
        ]
        if not quick:
            steps += [
                ("Patroni and PostgreSQL of the primary killed", FAILOVER, lose_machine),
                ("Patroni of the primary killed and restarted", PLANNED, restart_patroni),
                ("a rolling restart of all three", PLANNED, restart),
                ("etcd's leader killed", PLANNED, lose_etcd),
                (f"etcd down for {TTL + 10} s", PLANNED, lose_all_etcd),
            ]
        with serving(url, folder, WEB_CONCURRENCY="2", ACCESS_LOG="off") as server:
            processes = [worker.pid for worker in server.workers()]
            for number, (step, limit, fail) in enumerate(steps):
                writers = [Writer(f"{number}-{client}", [Client(server.port)]) for client in range(CLIENTS)]
                with probing(server, "/health/ready") as probes, working(writers):
                    time.sleep(load)
                    acknowledged = [len(writer.created) for writer in writers]
                    fail()
                    until(partial(all_wrote, writers, acknowledged))
                    recovery = 0 if quick and fail is crash else until(patroni.healthy, 60)
                    time.sleep(load)
                problems = compare(writers, f"{url}?target_session_attrs=read-write")
                figures = summary(writers, problems, limit)
                problems += wrong_probes(probes, *gap(writers))
                if recovery == inf:
                    problems.append("a standby is missing")
                if processes != [worker.pid for worker in server.workers()]:
                    problems.append("a worker was restarted")
                yield f"{step}: {figures}", problems
