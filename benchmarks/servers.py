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
STOP_SECONDS = 15

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
    """Return the response for a hero that FILL has made."""
    return {"name": f"Hero {hero_id}", "age": None if hero_id % 10 == 0 else hero_id % 90, "id": hero_id}


class Refused(Exception):
    """A server gave a wrong response, so that its figures would mean nothing."""


@dataclass(frozen=True)
class Server:
    """An app on a server, one row of the tables.

    `command` and `make_table` are arguments for `python`, run in the project's root. An app without `make_table` gets
    the tutorial's table. `packages` are those whose versions are reported.
    """

    app: str
    server: str
    command: tuple[str, ...]
    packages: tuple[str, ...]
    python: Path = Path(sys.executable)
    make_table: tuple[str, ...] = ()
    journal: str = "WAL"
    variant: str = ""
    url_options: str = ""

    @property
    def name(self) -> str:
        """The name on the command line and in results.json."""
        return "-".join(filter(None, (self.app, self.server, self.variant)))


def on_gunicorn(target: str, *config: str) -> tuple[str, ...]:
    return ("-m", "gunicorn", *config, target)


def on_granian(target: str, interface: str = "wsgi") -> tuple[str, ...]:
    # An ASGI app has one Python thread by design.
    threads = ("--blocking-threads", str(THREADS)) if interface == "wsgi" else ()
    logs = ("--log-level", "warning")
    stop = ("--workers-kill-timeout", str(STOP_SECONDS))
    return ("-m", "granian", "--interface", interface, "--http", "1", "--no-ws", *threads, *logs, *stop, target)


def on_uvicorn(target: str) -> tuple[str, ...]:
    return ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", target)


def peer(name: str, server: str, *packages: str) -> Server:
    """Return a peer on a server of its users: WSGI on gunicorn or Granian, ASGI on uvicorn or Granian."""
    target = f"benchmarks.peers.{name}_app:app"
    if server == "gunicorn":
        command = on_gunicorn(target, "--config", "benchmarks/peers/gunicorn_conf.py")
    elif server == "uvicorn":
        command = on_uvicorn(target)
    else:
        command = on_granian(target, "asgi" if name in ASGI else "wsgi")
    return Server(name, server, command, packages)


ASGI = {"tutorial", "litestar"}
UVICORN = ("uvicorn", "uvloop", "httptools")
LITESTAR = ("litestar", "advanced-alchemy", "aiosqlite")
TITLES = {
    "heroes": "**heroes**",
    "tutorial": "the tutorial (FastAPI)",
    "flask": "plain Flask",
    "apiflask": "APIFlask",
    "drf": "Django REST framework",
    "falcon": "Falcon",
    "litestar": "Litestar",
    "floor": "*the floor*",
}

HEROES_ON_GUNICORN = Server(
    "heroes",
    "gunicorn",
    on_gunicorn("wsgi:app"),
    ("Flask", "SQLAlchemy", "marshmallow", "orjson", "gunicorn"),
    make_table=("-m", "flask", "--app", "wsgi", "db", "upgrade"),
)
HEROES_ON_GRANIAN = replace(HEROES_ON_GUNICORN, server="granian", command=on_granian("wsgi:app"), packages=("granian",))
HEROES = [HEROES_ON_GUNICORN, HEROES_ON_GRANIAN]
TUTORIAL_IN_WAL = replace(
    peer("tutorial", "uvicorn", "fastapi", "sqlmodel", *UVICORN), python=ORACLE_PYTHON, variant="wal"
)
# As its users run it: `fastapi run` starts uvicorn, and rollback is the journal mode of a new SQLite file.
TUTORIAL = replace(TUTORIAL_IN_WAL, journal="DELETE", variant="")
SERVERS = [
    HEROES_ON_GUNICORN,
    peer("flask", "gunicorn", "Flask-SQLAlchemy"),
    peer("apiflask", "gunicorn", "APIFlask"),
    peer("drf", "gunicorn", "Django", "djangorestframework"),
    peer("falcon", "gunicorn", "falcon"),
    peer("floor", "gunicorn"),
    HEROES_ON_GRANIAN,
    peer("flask", "granian"),
    peer("falcon", "granian"),
    peer("litestar", "granian", *LITESTAR),
    replace(peer("tutorial", "granian", "granian"), python=ORACLE_PYTHON),
    peer("floor", "granian"),
    TUTORIAL,
    TUTORIAL_IN_WAL,
    peer("litestar", "uvicorn"),
]
# psycopg prepares a statement at its fifth execution unless it is told otherwise; heroes tells it otherwise.
PREPARED = [replace(each, variant="prepared", url_options="prepare_threshold=5") for each in HEROES]
ON_POSTGRESQL = [HEROES_ON_GUNICORN, PREPARED[0], HEROES_ON_GRANIAN, PREPARED[1], TUTORIAL]


def pinned(cores: list[int]) -> tuple[str, ...]:
    """Return the start of a command line that runs on these cores only."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


class Database:
    """A database of heroes, SQLite or PostgreSQL, that is reset to its first rows between measurements."""

    def __init__(self, url: str, rows: int) -> None:
        self.url, self.rows = url, rows
        self.sqlite = url.startswith("sqlite")
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def execute(self, statement: str, **values: object) -> Any:
        """Return the first row of a statement, or None."""
        with self.engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return result.first() if result.returns_rows else None

    def fill(self, journal: str) -> None:
        """Create the table if the server has not, and insert rows with the ids 1 to `rows`."""
        for statement in TABLE:
            self.execute(statement.format(id="INTEGER" if self.sqlite else "SERIAL"))
        if self.sqlite:
            self.execute(f"PRAGMA journal_mode={journal}")
        self.execute(FILL, count=self.rows)
        self.settle()

    def add(self, count: int) -> int:
        """Insert `count` heroes with consecutive ids and return the first id."""
        self.execute(FILL, count=count)
        first, last = self.execute("SELECT min(id), max(id) FROM hero WHERE id > :rows", rows=self.rows)
        if last - first + 1 != count:
            raise RuntimeError("the ids of the added heroes have gaps")
        self.settle()
        return int(first)

    def added(self) -> int:
        """Return the number of heroes beyond the first rows."""
        return int(self.execute("SELECT count(*) FROM hero WHERE id > :rows", rows=self.rows)[0])

    def reset(self) -> None:
        """Delete the heroes beyond the first rows."""
        self.execute("DELETE FROM hero WHERE id > :rows", rows=self.rows)
        self.settle()

    def settle(self) -> None:
        """Checkpoint or vacuum, so that the next measurement does not pay for it."""
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
        url = self.database.url
        if self.server.url_options:
            url += ("&" if "?" in url else "?") + self.server.url_options
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "ACCESS_LOG": "off",
            "BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": str(self.workers),
            "GUNICORN_THREADS": str(THREADS),
            "UVICORN_PORT": str(self.port),
            "GRANIAN_PORT": str(self.port),
            "GRANIAN_WORKERS": str(self.workers),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self.log = tempfile.TemporaryFile()
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*pinned(self.cores), str(self.server.python), *self.server.command],
            cwd=ROOT,
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.wait()
        self.startup = time.perf_counter() - started
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for process in self.processes():
                process.kill()
            self.process.wait()
        self.log.close()

    def wait(self) -> None:
        """Wait until the server responds. Raises Refused, with the server's log, if it exits or takes too long."""
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline and self.process.poll() is None:
            try:
                self.ask("GET", "/heroes/?limit=1")
                return
            except OSError:
                time.sleep(0.005)
        if self.process.poll() is None:
            for process in self.processes():
                process.kill()
        self.process.wait()
        self.log.seek(0)
        raise Refused(f"{self.server.name} does not start:\n{self.log.read().decode()[-2000:]}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request on a new connection and return the status and the JSON, or else the text."""
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
        """Return the server's processes, the first one leading."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def cpu(self) -> float:
        """Return the CPU time, user and system, of all processes of the server, replaced workers included."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))

    def rest(self) -> None:
        """Wait until the server is idle."""
        used = -1.0
        while self.cpu() - used > 0.01:
            used = self.cpu()
            time.sleep(0.1)

    def memory(self) -> tuple[int, int]:
        """Return the proportional set size of the largest process, which is a worker, and of all together."""
        sizes = [process.memory_full_info().pss for process in self.processes()]
        return max(sizes), sum(sizes)


def prepare(server: Server, url: str, rows: int) -> Database:
    """Create and fill a server's database. The table is the server's own if it makes one, else the tutorial's."""
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
