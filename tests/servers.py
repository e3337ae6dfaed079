"""Real servers in separate processes: gunicorn, granian or any other command."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from coverage import Coverage

from tests.client import Client
from tests.constants import ROOT

Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], timeout: float = 40) -> Found:
    """Wait until a condition is true and return its value. Raise AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"condition still false after {timeout} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """Return a port on which nothing listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """A running server, with its standard output and error in the file `log`."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path
    database_url: str = ""

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    def client(self, timeout: float = 30, keep_alive: bool = True) -> Client:
        """Return a client for this server."""
        return Client(self.port, self.host, timeout, keep_alive)

    def answers(self) -> bool:
        """Return whether it responds to requests."""
        try:
            self.client(timeout=5, keep_alive=False).send("GET", "/health/live")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def listens(self) -> bool:
        """Return whether the main process listens. gunicorn's stops listening just before it stops its workers."""
        sockets = psutil.Process(self.process.pid).net_connections("inet")
        return any(each.status == psutil.CONN_LISTEN for each in sockets)

    def accepted(self) -> int:
        """Return how many client connections its workers hold."""
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.port
            for worker in self.workers()
            for each in worker.net_connections("inet")
        )

    def workers(self) -> list[psutil.Process]:
        """Return the child processes of the main process."""
        return list(psutil.Process(self.process.pid).children())

    def listening_workers(self) -> list[psutil.Process]:
        """Return the workers that listen. Each of Granian's opens its own socket once it has started."""
        found = []
        for worker in self.workers():
            with suppress(psutil.Error):
                if any(each.status == psutil.CONN_LISTEN for each in worker.net_connections("inet")):
                    found.append(worker)
        return found

    def kill(self) -> None:
        """Kill it and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Stop it with SIGTERM, as systemd does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        # gunicorn kills a worker after 30 s that has missed the signal, because it was just starting.
        return self.process.wait(45)


def launch(
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    log: Path,
    address: str = "127.0.0.1",
    database_url: str = "",
    cwd: str | Path = ROOT,
    stdin: int = subprocess.DEVNULL,
) -> Server:
    """Start a command and wait until it responds to requests.

    Raise RuntimeError with its log if it exits first, or does not respond within 30 seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | environment,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, address, port, log, database_url)
    try:
        wait_until(lambda: server.answers() or process.poll() is not None, 30)
        assert process.poll() is None
    except AssertionError as error:
        server.kill()
        raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text()}") from error
    except BaseException:
        server.kill()
        raise
    return server


# As in the Makefile, the unit and the documentation.
RESPAWN = "--respawn-failed-workers --respawn-interval 10 --workers-kill-timeout 30"


def granian(address: str, port: int, workers: str, threads: str) -> list[str]:
    """Return the command line of granian."""
    options = (
        f"--interface wsgi --host {address} --port {port} --workers {workers} --blocking-threads {threads}"
        f" --no-ws --http 1 {RESPAWN}"
    )
    return [sys.executable, "-m", "granian", *options.split(), "wsgi:app"]


def start_server(
    database_url: str,
    folder: Path,
    address: str = "127.0.0.1",
    server: str = "gunicorn",
    cwd: str | Path = ROOT,
    **environment: str,
) -> Server:
    """Start `gunicorn wsgi:app` as the README does, or with the factory, or granian, with its log in `folder`."""
    port = free_port()
    settings = {
        "DATABASE_URL": database_url,
        "BIND": f"{address}:{port}",
        "WEB_CONCURRENCY": "1",
        "GUNICORN_THREADS": "3",
    } | environment
    commands = {
        "gunicorn": [sys.executable, "-m", "gunicorn", "wsgi:app"],
        "factory": [sys.executable, "-m", "gunicorn", "heroes:create_app()"],
        "granian": granian(address, port, settings["WEB_CONCURRENCY"], settings["GUNICORN_THREADS"]),
    }
    return launch(commands[server], settings, port, folder / f"{server}-{port}.log", address, database_url, cwd)


def measured() -> dict[str, str]:
    """Return the environment that measures the coverage of a Python subprocess, if this process is measured.

    The data is written at exit: a server has to be stopped, not killed. It takes a third of a second.
    """
    if Coverage.current() is None:
        return {}
    return {"COVERAGE_PROCESS_START": str(ROOT / "setup.cfg")}


@contextmanager
def serving(
    database_url: str, folder: Path, address: str = "127.0.0.1", cwd: str | Path = ROOT, **environment: str
) -> Iterator[Server]:
    """Run a server, as start_server() does, during the block."""
    server = start_server(database_url, folder, address, cwd=cwd, **environment)
    try:
        yield server
    finally:
        server.kill()
