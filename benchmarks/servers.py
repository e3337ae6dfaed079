"""The servers that are measured, and their databases: how each is started, filled, watched and stopped."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psutil
from sqlalchemy import create_engine, text

ROOT = Path(__file__).resolve().parent.parent
ORACLE_PYTHON = ROOT / ".venv-oracle" / "bin" / "python"
THREADS = 3
START_SECONDS = 60

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, LOAD_CORES = CORES[:1], CORES[1:]

TABLE = (
    """
    CREATE TABLE IF NOT EXISTS hero (
        id {id} NOT NULL PRIMARY KEY, name VARCHAR NOT NULL, age INTEGER, secret_name VARCHAR NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS ix_hero_name ON hero (name)",
    "CREATE INDEX IF NOT EXISTS ix_hero_age ON hero (age)",
)
FILL = """
    INSERT INTO hero (name, age, secret_name)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
    SELECT 'Hero ' || i, CASE WHEN i % 10 = 0 THEN NULL ELSE i % 90 END, 'Secret ' || i FROM n
"""


def seeded(hero_id: int) -> dict[str, Any]:
    """What a server answers for a hero that FILL has made."""
    return {"name": f"Hero {hero_id}", "age": None if hero_id % 10 == 0 else hero_id % 90, "id": hero_id}


class Refused(Exception):
    """A server did not answer what it must, so that its times would mean nothing."""


@dataclass(frozen=True)
class Server:
    """One entry of the tables. `packages` are those whose versions are told.

    `command` and, where it does not take the tutorial's table, `make_table` are arguments for its Python, to be run in
    the project's root.
    """

    name: str
    title: str
    command: tuple[str, ...]
    packages: tuple[str, ...]
    python: Path = Path(sys.executable)
    on_postgresql: bool = False
    make_table: tuple[str, ...] = ()
    journal: str = "WAL"


def pinned(cores: list[int]) -> tuple[str, ...]:
    """What a command line starts with to run on these cores only."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


def gunicorn(module: str) -> tuple[str, ...]:
    return ("-m", "gunicorn", "--config", "benchmarks/peers/gunicorn_conf.py", f"benchmarks.peers.{module}:app")


def uvicorn(module: str) -> tuple[str, ...]:
    options = ("--no-access-log", "--log-level", "warning")
    return ("-m", "uvicorn", *options, f"benchmarks.peers.{module}:app")


TUTORIAL = Server(
    "tutorial",
    "the tutorial (FastAPI)",
    uvicorn("tutorial"),
    ("fastapi", "sqlmodel", "SQLAlchemy", "uvicorn", "uvloop", "httptools"),
    ORACLE_PYTHON,
    on_postgresql=True,
)
SERVERS = [
    Server(
        "heroes",
        "**heroes**",
        ("-m", "gunicorn", "wsgi:app"),
        ("Flask", "SQLAlchemy", "gunicorn"),
        on_postgresql=True,
        make_table=("-m", "flask", "--app", "wsgi", "db", "upgrade"),
    ),
    TUTORIAL,
    replace(
        TUTORIAL,
        name="tutorial-journal",
        title="the tutorial, rollback journal",
        on_postgresql=False,
        journal="DELETE",
    ),
    Server(
        "flask",
        "plain Flask",
        gunicorn("flask_plain"),
        ("Flask", "Flask-SQLAlchemy", "marshmallow"),
        on_postgresql=True,
    ),
    Server("apiflask", "APIFlask", gunicorn("apiflask_app"), ("APIFlask",), on_postgresql=True),
    Server("drf", "Django REST framework", gunicorn("drf_app"), ("Django", "djangorestframework")),
    Server("falcon", "Falcon", gunicorn("falcon_app"), ("falcon",), on_postgresql=True),
    Server(
        "litestar",
        "Litestar",
        uvicorn("litestar_app"),
        ("litestar", "advanced-alchemy", "aiosqlite", "uvicorn", "uvloop", "httptools"),
    ),
    Server("floor", "*the floor*", gunicorn("floor"), ("gunicorn", "orjson")),
    Server("floor-worker", "*the floor in heroes' worker*", ("-m", "gunicorn", "benchmarks.peers.floor:app"), ()),
]


class Database:
    """A database of heroes, on SQLite in WAL mode or on PostgreSQL, that is put back to its first rows between runs."""

    def __init__(self, url: str, rows: int) -> None:
        self.url, self.rows = url, rows
        self.sqlite = url.startswith("sqlite")
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def execute(self, statement: str, **values: object) -> Any:
        """The first row of one statement, or None."""
        with self.engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return result.first() if result.returns_rows else None

    def fill(self, journal: str) -> None:
        """Make the table unless the server has made its own, then the rows with the ids 1 to `rows`."""
        for statement in TABLE:
            self.execute(statement.format(id="INTEGER" if self.sqlite else "SERIAL"))
        if self.sqlite:
            self.execute(f"PRAGMA journal_mode={journal}")
        self.execute(FILL, count=self.rows)
        self.settle()

    def add(self, count: int) -> int:
        """Add `count` heroes with ids one after the other and return the first id."""
        self.execute(FILL, count=count)
        first, last = self.execute("SELECT min(id), max(id) FROM hero WHERE id > :rows", rows=self.rows)
        if last - first + 1 != count:
            raise RuntimeError("the ids of the added heroes have gaps")
        self.settle()
        return int(first)

    def added(self) -> int:
        """How many heroes there are beyond the first rows."""
        return int(self.execute("SELECT count(*) FROM hero WHERE id > :rows", rows=self.rows)[0])

    def reset(self) -> None:
        """Remove the heroes beyond the first rows."""
        self.execute("DELETE FROM hero WHERE id > :rows", rows=self.rows)
        self.settle()

    def settle(self) -> None:
        """Leave no work behind that the next run would pay for."""
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)" if self.sqlite else "VACUUM ANALYZE hero")

    def close(self) -> None:
        self.engine.dispose()


@dataclass
class Running:
    """A started server. Times are in seconds, memory in bytes."""

    server: Server
    database: Database
    workers: int = 1
    cores: list[int] = field(default_factory=lambda: SERVER_CORES)
    startup: float = 0.0

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        paths = [str(ROOT), str(ROOT / "tests" / "contract"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "DATABASE_URL": self.database.url,
            "ACCESS_LOG": "off",
            "BIND": f"127.0.0.1:{self.port}",
            "PORT": str(self.port),
            "UVICORN_PORT": str(self.port),
            "WEB_CONCURRENCY": str(self.workers),
            "GUNICORN_THREADS": str(THREADS),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        if self.database.sqlite:
            environment["SEED_DB"] = self.database.url.removeprefix("sqlite:///")
        self.log = tempfile.TemporaryFile()
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*pinned(self.cores), str(self.server.python), *self.server.command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
        )
        self.wait()
        self.startup = time.perf_counter() - started
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            for process in self.processes():
                process.kill()
            self.process.wait()
        self.log.close()

    def wait(self) -> None:
        """Wait until the server answers. Raises Refused, with what it wrote, when it ends or takes too long."""
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline and self.process.poll() is None:
            try:
                self.ask("GET", "/heroes/?limit=1")
                return
            except OSError:
                time.sleep(0.005)
        self.process.kill()
        self.process.wait()
        self.log.seek(0)
        raise Refused(f"{self.server.name} does not start:\n{self.log.read().decode()[-2000:]}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON, or else the text, of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            response = connection.getresponse()
            text = response.read().decode()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    def processes(self) -> list[psutil.Process]:
        """The server's processes, the first one leading."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU, user and system, that all processes of the server have used."""
        return cpu_seconds(self.processes())

    def rest(self) -> None:
        """Wait until the server has done what a load left in its queue."""
        used = -1.0
        while self.cpu() - used > 0.01:
            used = self.cpu()
            time.sleep(0.1)

    def memory(self) -> tuple[int, int]:
        """Proportional set size in bytes: of the largest process, which is a worker, and of all together."""
        sizes = [process.memory_full_info().pss for process in self.processes()]
        return max(sizes), sum(sizes)


def prepare(server: Server, url: str, rows: int) -> Database:
    """A filled database for a server, in the table that the server makes itself if it does so."""
    database = Database(url, rows)
    if server.make_table:
        command = [str(server.python), *server.make_table]
        made = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, check=False, capture_output=True, text=True
        )
        if made.returncode:
            last = made.stderr.strip().rpartition("\n")[2]
            raise Refused(f"{server.name} does not make its table: {last}\n{made.stderr}")
    database.fill(server.journal)
    return database


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of processes and, should a worker have been replaced meanwhile, of children they had."""
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))
