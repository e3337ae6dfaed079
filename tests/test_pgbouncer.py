"""Behind PgBouncer in transaction mode, with the configuration that deploy/ has."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from flask_migrate import downgrade

from heroes import create_app
from heroes.extensions import db
from tests.client import Client
from tests.commands import run_flask
from tests.constants import HERO, public
from tests.databases import migrated
from tests.drills.service import cluster
from tests.poolers import TIMEOUTS, PgBouncer, running_pgbouncer
from tests.servers import serving, wait_until

POOL = 4  # server connections
CLIENTS = 12
ROUNDS = 5
DEFAULTS = {"query_wait_timeout = 5": "", "server_login_retry = 1": ""}
# State that heroes may leave on a server connection for the next client. PgBouncer itself sets the first five settings.
LEFT_BEHIND = {
    "setting": "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN"
    " ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')",
    "prepared statement": "SELECT name FROM pg_prepared_statements",
    "lock": "SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'",
    "temporary table": "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "cursor": "SELECT name FROM pg_cursors WHERE name <> ''",
    "channel": "SELECT pg_listening_channels()",
}

pytestmark = pytest.mark.xdist_group("pgbouncer")


@pytest.fixture
def pgbouncer(postgres: str) -> Iterator[Callable[..., PgBouncer]]:
    """Start PgBouncer in front of a database with the newest schema: pgbouncer(timeouts="5s", replaced={…})."""
    with ExitStack() as stack:

        def start(timeouts: str = "5s", replaced: dict[str, str] | None = None, migrate: bool = True) -> PgBouncer:
            sizes = {"default_pool_size = 20": f"default_pool_size = {POOL}"}
            pooler = stack.enter_context(running_pgbouncer(postgres, sizes | (replaced or {})))
            pooler.set_timeouts(timeouts)
            if migrate:
                migrated(f"{pooler.url}?pgbouncer=true")
            return pooler

        yield start


def rows(pooler: PgBouncer, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL beside PgBouncer."""
    with psycopg.connect(pooler.direct) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def left_behind(pooler: PgBouncer, connections: int = POOL) -> list[tuple[str, str]]:
    """Return what the server connections keep of the clients that used them before."""
    found, servers = [], set()
    with ExitStack() as stack:
        for _ in range(connections):
            client = stack.enter_context(psycopg.connect(pooler.url, prepare_threshold=None))
            # The transaction stays open: the next client gets another server connection.
            servers |= set(client.execute("SELECT pg_backend_pid()"))
            for kind, sql in LEFT_BEHIND.items():
                found += [(kind, name) for (name,) in client.execute(sql)]
    assert len(servers) == connections
    return found


@contextmanager
def clients(url: str, count: int) -> Iterator[list[FlaskClient]]:
    """Yield test clients, each of which has a database connection of its own."""
    apps = [create_app({"SQLALCHEMY_DATABASE_URI": url, "GUNICORN_THREADS": 1}) for _ in range(count)]
    try:
        yield [app.test_client() for app in apps]
    finally:
        for app in apps:
            with app.app_context():
                db.engine.dispose()


def use_everything(client: Client, name: str) -> list[dict[str, Any]]:
    """Send each operation with and without conditions and keys; return the heroes that are to remain."""
    asked: list[tuple[str, int, int]] = []

    def send(status: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        response = client.send(method, path, body, sent)
        asked.append((f"{method} {path} {sent}", status, response.status))
        return response

    created = send(200, "POST", "/heroes/", HERO | {"name": name})
    keyed = send(200, "POST", "/heroes/", HERO | {"name": name}, Idempotency_Key=name)
    again = send(200, "POST", "/heroes/", HERO | {"name": name}, Idempotency_Key=name)
    send(422, "POST", "/heroes/", HERO, Idempotency_Key=name)
    first, second = (f"/heroes/{response.json['id']}" for response in (created, keyed))
    tag = created.headers["ETag"]

    read = send(200, "GET", first)
    send(200, "GET", first, If_Match=tag)
    send(412, "GET", first, If_Match='"1"')
    send(304, "GET", first, If_None_Match=tag)
    send(200, "GET", f"/heroes/?name={name}&sort=-id", Prefer="count=exact")
    send(200, "GET", "/heroes/?limit=3&after=1")

    aged = send(200, "PATCH", first, {"age": 1})
    send(412, "PATCH", first, {"age": 2}, If_Match=tag)
    changed = send(200, "PATCH", first, {"age": 3}, If_Match=aged.headers["ETag"])
    send(200, "PATCH", first, {})
    send(404, "PATCH", "/heroes/0", {"age": 4})

    send(412, "DELETE", second, If_Match='"1"')
    send(200, "DELETE", second, If_Match=keyed.headers["ETag"])
    send(404, "DELETE", second, If_Match=keyed.headers["ETag"])
    send(404, "GET", second)
    deleted = send(200, "POST", "/heroes/", HERO | {"name": name})
    send(200, "DELETE", f"/heroes/{deleted.json['id']}")
    send(404, "DELETE", f"/heroes/{deleted.json['id']}")

    assert [each for each in asked if each[1] != each[2]] == []
    assert again.json == keyed.json == public(name=name, id=keyed.json["id"])
    assert read.json == created.json
    assert changed.json == public(name=name, id=created.json["id"], age=3)
    return [changed.json]


def test_more_clients_than_server_connections(pgbouncer: Callable[..., PgBouncer], tmp_path: Path) -> None:
    pooler = pgbouncer(replaced=DEFAULTS)

    def work(number: int) -> list[dict[str, Any]]:
        remaining = []
        with server.client() as client:
            for count in range(ROUNDS):
                remaining += use_everything(client, f"{number}-{count}")
                # All clients send one key.
                shared = client.send("POST", "/heroes/", HERO, {"Idempotency-Key": f"shared-{count}"})
                assert shared.status == 200
                remaining.append(shared.json)
        return remaining

    url = f"{pooler.url}?pgbouncer=true"
    with serving(url, tmp_path, WEB_CONCURRENCY="2", GUNICORN_THREADS="6", ACCESS_LOG="off") as server:
        with ThreadPoolExecutor(CLIENTS) as pool:
            expected = [hero for found in pool.map(work, range(CLIENTS)) for hero in found]
        log = server.log.read_text()

    table = rows(pooler, "SELECT id, name, age FROM hero ORDER BY id")
    assert table == sorted({(hero["id"], hero["name"], hero["age"]) for hero in expected})
    assert len(table) == (CLIENTS + 1) * ROUNDS
    assert left_behind(pooler) == []
    assert '"WARNING"' not in log
    assert '"ERROR"' not in log


def test_a_stop_of_the_pooler_is_503_until_it_is_back(pgbouncer: Callable[..., PgBouncer], tmp_path: Path) -> None:
    pooler = pgbouncer()
    paths = ("/heroes/", "/heroes/1", "/health/ready")

    with serving(f"{pooler.url}?pgbouncer=true", tmp_path) as server, server.client() as client:
        assert client.send("POST", "/heroes/", HERO).status == 200
        for _ in range(2):
            assert [client.send("GET", path).status for path in paths] == [200] * 3
            pooler.stop()
            assert [client.send("GET", path).status for path in paths] == [503] * 3
            assert client.send("POST", "/heroes/", HERO).status == 503
            assert client.send("GET", "/health/live").status == 200
            pooler.start()
            # After a failure a request waits for a new connection for half a second only.
            wait_until(lambda: client.send("GET", "/health/ready").status == 200, 10)
        assert [client.send("GET", path).status for path in paths] == [200] * 3
        assert client.send("PATCH", "/heroes/1", {"age": 1}).status == 200
    assert rows(pooler, "SELECT id, age FROM hero") == [(1, 1)]


def test_a_stop_of_postgresql_behind_the_pooler_is_503_until_it_is_back(tmp_path: Path) -> None:
    wait = {"query_wait_timeout = 5": "query_wait_timeout = 2"}

    with (
        # Only we can enter tmp_path; PostgreSQL runs as another user if we are root.
        tempfile.TemporaryDirectory(prefix="heroes-postgres-") as folder,
        cluster(Path(folder, "postgres")) as postgres,
        running_pgbouncer(postgres.url, wait) as pooler,
    ):
        pooler.set_timeouts("5s")
        url = f"{pooler.url}?pgbouncer=true"
        migrated(url)
        # PostgreSQL's start may take longer than gunicorn keeps a connection.
        with serving(url, tmp_path) as server, server.client(keep_alive=False) as client:
            assert client.send("GET", "/health/ready").status == 200
            postgres.control("-w", "-m", "immediate", "stop")
            assert [client.send("GET", path).status for path in ("/health/ready", "/heroes/")] == [503] * 2
            postgres.start()
            wait_until(lambda: client.send("GET", "/health/ready").status == 200, 10)
            assert client.send("POST", "/heroes/", HERO).status == 200


def test_start_before_the_pooler_succeeds(
    pgbouncer: Callable[..., PgBouncer], caplog: pytest.LogCaptureFixture
) -> None:
    pooler = pgbouncer()
    pooler.stop()

    with clients(f"{pooler.url}?pgbouncer=true", 1) as [client]:
        assert client.get("/health/ready").status_code == 503
        assert "PgBouncer: timeouts not checked, connection failed: " in caplog.text
        pooler.start()
        wait_until(lambda: client.get("/health/ready").status_code == 200, 10)


def test_a_wait_for_a_server_connection_ends(pgbouncer: Callable[..., PgBouncer]) -> None:
    pooler = pgbouncer(
        replaced={"query_wait_timeout = 5": "query_wait_timeout = 1", "default_pool_size = 20": "default_pool_size = 1"}
    )

    with clients(f"{pooler.url}?pgbouncer=true", 1) as [client]:
        assert client.post("/heroes/", json=HERO).status_code == 200
        with psycopg.connect(pooler.url) as busy:
            busy.execute("SELECT 1")
            assert client.get("/heroes/1").status_code == 503
        assert client.get("/heroes/1").status_code == 200


def test_without_pgbouncer_in_the_url_the_log_says_why(
    pgbouncer: Callable[..., PgBouncer], caplog: pytest.LogCaptureFixture
) -> None:
    with clients(pgbouncer().url, 1) as [client]:
        assert client.get("/heroes/").status_code == 503
        assert "unsupported startup parameter: options" in caplog.text


def test_missing_timeouts_of_the_role_are_logged_at_start(
    pgbouncer: Callable[..., PgBouncer], caplog: pytest.LogCaptureFixture
) -> None:
    pooler = pgbouncer("0")
    found = []

    for _ in range(2):
        caplog.clear()
        with clients(f"{pooler.url}?pgbouncer=true", 1):
            found.append([record.getMessage() for record in caplog.records if record.levelname == "WARNING"])
        pooler.set_timeouts("5s")
        pooler.stop()
        pooler.start()

    assert found == [[f"PgBouncer: {name} is 0; set it with ALTER ROLE … SET {name}" for name in TIMEOUTS], []]


def test_the_timeouts_of_the_role_hold(pgbouncer: Callable[..., PgBouncer]) -> None:
    pooler = pgbouncer("500ms")

    with clients(f"{pooler.url}?pgbouncer=true", 1) as [client]:
        with psycopg.connect(pooler.direct) as other:
            other.execute("LOCK TABLE hero")
            assert client.get("/heroes/").status_code == 503
        assert client.get("/heroes/").status_code == 200


def test_migrations_go_through_the_pooler(pgbouncer: Callable[..., PgBouncer]) -> None:
    pooler = pgbouncer(migrate=False)
    url = f"{pooler.url}?pgbouncer=true"

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_flask(url, "db", "upgrade", text=True), range(2)))
    assert [each.returncode for each in done] == [0] * 2, done
    with clients(url, 1) as [client]:
        assert client.get("/health/ready").status_code == 200
        assert client.post("/heroes/", json=HERO).status_code == 200
    assert left_behind(pooler) == []
    with clients(url, 1) as [client], client.application.app_context():
        downgrade(revision="base")
    assert rows(pooler, "SELECT to_regclass('hero')") == [(None,)]


def test_import_and_export_go_through_the_pooler(pgbouncer: Callable[..., PgBouncer], tmp_path: Path) -> None:
    pooler = pgbouncer(replaced={"default_pool_size = 20": "default_pool_size = 1"})
    given, out = tmp_path / "heroes.csv", tmp_path / "out.ndjson"
    # More rows than a cursor fetches at once.
    given.write_text("id,name,age,secret_name\n" + "".join(f"{i},Hero {i},{i},Secret\n" for i in range(1, 2501)))

    def flask(*args: str) -> int:
        # Each command has a client connection of its own, as a process has.
        with clients(f"{pooler.url}?pgbouncer=true", 1) as [client]:
            return client.application.test_cli_runner().invoke(args=["heroes", *args]).exit_code

    for args in (["import", str(given)], ["export", "--with-secrets", str(out)]):
        assert flask(*args) == 0
        assert left_behind(pooler, 1) == []
    before = rows(pooler, "SELECT id, name, age, secret_name FROM hero ORDER BY id")
    rows(pooler, "TRUNCATE hero")
    # The second import uses the same server connection.
    assert flask("import", str(out)) == 0
    assert rows(pooler, "SELECT id, name, age, secret_name FROM hero ORDER BY id") == before
    assert len(before) == 2500
    assert flask("import", str(out)) == 1
    assert left_behind(pooler, 1) == []


# The second is an operator's usual fix of "unsupported startup parameter".
@pytest.mark.parametrize(("query", "ignored"), [("?pgbouncer=true", ""), ("", "\nignore_startup_parameters = options")])
def test_a_read_never_runs_a_statement_of_another_client(
    pgbouncer: Callable[..., PgBouncer], query: str, ignored: str
) -> None:
    pooler = pgbouncer(
        replaced={
            "default_pool_size = 20": "default_pool_size = 1",
            "pool_mode = transaction": f"pool_mode = transaction{ignored}",
        }
    )
    rows(pooler, "INSERT INTO hero (name, secret_name) SELECT 'Deadpond', 'Dive Wilson' FROM generate_series(1, 30)")

    with clients(f"{pooler.url}{query}", 2) as [reader, deleter]:
        for _ in range(10):
            assert reader.get("/heroes/30").status_code == 200
        # The next server connection has none of the reader's prepared statements.
        rows(pooler, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{pooler.role}'")
        for number in range(1, 11):
            assert deleter.delete(f"/heroes/{number}").status_code == 200
        statuses = [reader.get(f"/heroes/{number}").status_code for number in range(11, 31)]
    assert rows(pooler, "SELECT count(*) FROM hero") == [(20,)]
    assert statuses == [200] * 20
