"""Behind nginx, with the configuration that deploy/ has: slow clients, dead servers, floods, and the systemd unit."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client import Client
from tests.constants import HERO, ROOT, public, sqlite_only
from tests.load import Load, load
from tests.servers import Server, serving, wait_until
from tests.soak.proxy import FAST, Nginx, required

BODY = json.dumps(HERO).encode()

READ = [("GET", "/heroes/", None)]
THREADS = 3  # of each server
DEFAULTS = {"PROXY_HOPS": "1", "ACCESS_LOG": "off", "WEB_CONCURRENCY": "1", "GUNICORN_THREADS": str(THREADS)}
FOUR = (False,) * 4  # clients that open a connection for each request
Start = Callable[[list[Server], dict[str, str]], Nginx]

pytestmark = pytest.mark.xdist_group("proxy")


@pytest.fixture(scope="module")
def servers(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two gunicorns on one database, for the tests that do not stop them."""
    folder = tmp_path_factory.mktemp("proxied")
    shutil.copyfile(migrated_sqlite, folder / "database.db")
    settings = DEFAULTS | {"METRICS": "1", "CORS_ORIGINS": "https://a.example"}
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'database.db'}"
        yield [stack.enter_context(serving(url, folder, **settings)) for _ in range(2)]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Start]:
    """Start an nginx in front of servers: nginx(servers, replaced={…})."""
    required("nginx")
    with ExitStack() as stack:

        def start(servers: list[Server], replaced: dict[str, str]) -> Nginx:
            proxy = Nginx(tmp_path / "nginx", [server.port for server in servers], replaced)
            stack.callback(proxy.stop)
            return proxy

        yield start


def answers(found: Load, count: int) -> None:
    """Wait for so many more responses."""
    before = len(found.seconds)
    wait_until(lambda: len(found.seconds) > before + count)


def test_slow_clients_do_not_delay_others(nginx: Start, servers: list[Server]) -> None:
    proxy = nginx(servers, FAST)
    head = b"POST /heroes/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    address = ("127.0.0.1", proxy.port)

    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(address, timeout=30))
        writers = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(50)]
        for writer in writers:
            writer.sendall(head % len(BODY))
        with load(proxy.port, READ, FOUR) as found:
            for position in range(6):
                for writer in writers:
                    writer.sendall(BODY[position : position + 1])
                answers(found, 100)
        assert set(found.outcomes) == {("GET", 200)}
        p99 = sorted(found.seconds)[len(found.seconds) * 99 // 100]
        print(f"{len(found.seconds)} answers beside 200 idle and 50 slow clients, p99 {p99 * 1000:.0f} ms")
        assert p99 < 1
        # The slow clients are answered, too, after their last byte.
        for writer in writers:
            writer.sendall(BODY[6:])
        for writer in writers:
            assert writer.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@sqlite_only
def test_killed_server_is_replaced_by_the_other(nginx: Start, serve: Callable[..., Server], tmp_path: Path) -> None:
    first, second = (serve(**DEFAULTS) for _ in range(2))
    proxy = nginx([first, second], FAST)

    with load(proxy.port, READ, FOUR) as found:
        answers(found, 50)
        first.kill()
        # nginx tries the killed server again after a second.
        log = tmp_path / "nginx" / "error.log"
        wait_until(lambda: log.read_text().count("connect() failed") >= 2)
        answers(found, 50)
    print(f"{len(found.seconds)} answers, one of two servers killed, slowest {max(found.seconds) * 1000:.0f} ms")
    assert found.outcomes.pop(("GET", 200)) > 100
    # gunicorn sends head and body one after the other: a response that the kill cuts in two can't be retried.
    assert all(str(each).startswith("IncompleteRead") for each in found.outcomes), found.outcomes
    assert found.outcomes.total() <= THREADS
    assert second.stop() == 0
    response = proxy.request("GET", "/heroes/")
    assert (response.status, response.json) == (503, {"detail": "Service Unavailable"})
    assert response.headers["Retry-After"] == "1"


def test_requests_of_one_client_are_rate_limited(nginx: Start, servers: list[Server]) -> None:
    proxy = nginx(servers, {"rate=100r/s": "rate=1r/s", "burst=200": "burst=4"})

    responses = [proxy.request("GET", "/heroes/") for _ in range(10)]
    assert [response.status for response in responses[:5]] == [200] * 5
    assert (responses[-1].status, responses[-1].json) == (429, {"detail": "Too Many Requests"})
    assert responses[-1].headers["Retry-After"] == "1"


def test_nginx_hides_operators_paths_and_large_bodies(nginx: Start, servers: list[Server]) -> None:
    proxy = nginx(servers, {})

    created = proxy.request("POST", "/heroes/", HERO)
    assert (created.status, created.json) == (200, public(id=created.json["id"]))
    assert proxy.request("GET", "/docs").status == 200
    for path in ("/metrics", "/health/live", "/health/ready"):
        refused = proxy.request("GET", path)
        assert (refused.status, refused.json) == (404, {"detail": "Not Found"})
    refused = proxy.request("POST", "/heroes/", "x" * (1024 * 1024))
    assert (refused.status, refused.json) == (413, {"detail": "Request Entity Too Large"})
    read = proxy.request("GET", f"/heroes/{created.json['id']}")
    assert read.headers["Content-Type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", read.headers["X-Request-ID"])


def test_nginx_passes_a_request_without_a_host_on(nginx: Start, servers: list[Server]) -> None:
    proxy = nginx(servers, {})

    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(b"GET /heroes/ HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


@sqlite_only
def test_addresses_of_a_proxy_in_front_of_nginx(nginx: Start, serve: Callable[..., Server]) -> None:
    server = serve(PROXY_HOPS="1", WEB_CONCURRENCY="1")
    commented = "    # set_real_ip_from 10.0.0.0/8;\n    # real_ip_header"
    proxy = nginx([server], {commented: "    set_real_ip_from 127.0.0.1;\n    real_ip_header"})

    headers = {"X-Forwarded-For": "192.0.2.7"}
    assert Client(proxy.port, keep_alive=False).send("GET", "/heroes/", None, headers).status == 200
    wait_until(lambda: '"client":"192.0.2.7"' in server.log.read_text())


PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "PATCH"}
# Requests whose values could lengthen the head of the response, and the status; nginx keeps both servers.
LONG: dict[str, tuple[str, str, dict[str, str], int]] = {
    "junk in a query": ("GET", "/heroes/?limit=1&" + "x" * 7000, {}, 200),
    "a long filter": ("GET", "/heroes/?limit=1&name=" + "%C3%A9" * 500, {}, 200),
    "a longer filter": ("GET", "/heroes/?limit=1&name=" + "%F0%9F%A6%B8" * 500, {}, 200),
    "a path": ("GET", "/" + "x" * 7000, {}, 404),
    "a method": ("X" * 7000, "/heroes/", {}, 405),
    "X-Request-ID": ("GET", "/heroes/", {"X-Request-ID": "x" * 7000}, 200),
    "the longest X-Request-ID": ("GET", "/heroes/", {"X-Request-ID": "x" * 128}, 200),
    "Host": ("GET", "/heroes/", {"Host": "x" * 7000}, 400),
    "Origin": ("GET", "/heroes/", {"Origin": "https://" + "x" * 7000}, 200),
    "X-Forwarded-Prefix": ("GET", "/", {"X-Forwarded-Prefix": "/" + "x" * 7000}, 302),
    "X-Forwarded-Host": ("GET", "/", {"X-Forwarded-Host": "x" * 7000}, 302),
    "headers of a preflight": ("OPTIONS", "/heroes/1", PREFLIGHT | {"Access-Control-Request-Headers": "x" * 7000}, 200),
    "many headers of a preflight": (
        "OPTIONS",
        "/heroes/1",
        PREFLIGHT | {"Access-Control-Request-Headers": "a," * 3500},
        200,
    ),
    "If-None-Match": ("GET", "/heroes/1", {"If-None-Match": '"' + "x" * 7000 + '"'}, 422),
    "Range": ("GET", "/docs/assets/swagger-ui.css", {"Range": "bytes=" + "0-1," * 1700}, 416),
    "Idempotency-Key": ("POST", "/heroes/", {"Idempotency-Key": "x" * 7000}, 422),
}


def test_no_request_makes_nginx_drop_a_server(nginx: Start, servers: list[Server]) -> None:
    proxy = nginx(servers, FAST)
    for name in ("\u00e9" * 500, "\U0001f9b8" * 500):
        for _ in range(2):
            assert proxy.request("POST", "/heroes/", HERO | {"name": name}).status == 200

    found = {}
    for case, (method, path, headers, _) in LONG.items():
        response = Client(proxy.port, keep_alive=False).send(method, path, HERO if method == "POST" else None, headers)
        others = {proxy.request("GET", "/heroes/").status for _ in range(4)}
        found[case] = (response.status, others)
    assert found == {case: (status, {200}) for case, (*_, status) in LONG.items()}


@pytest.mark.parametrize("name", ["heroes.service", "heroes-granian.service"])
def test_systemd_unit_is_valid_and_hardened(tmp_path: Path, name: str) -> None:
    analyze = required("systemd-analyze")
    text = (ROOT / "deploy" / name).read_text()
    assert "\n[Service]" in text.partition("\nStartLimitIntervalSec=0\n")[2]  # in the section [Unit]
    unit = tmp_path / name
    # Only the installed service is missing on this machine.
    unit.write_text(re.sub("/opt/heroes/.venv/bin/[a-z]+", "/bin/true", text))

    port = Path(shutil.copy(ROOT / "deploy" / "heroes.socket", tmp_path))
    units = [unit, port] if name == "heroes.service" else [unit]

    subprocess.run([analyze, "verify", *units], check=True, timeout=60)
    rating = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", unit], capture_output=True, timeout=60, check=False
    )
    assert rating.returncode == 0, rating.stdout.decode()


@pytest.mark.parametrize("broken", ["gunicorn.conf.py", "heroes/views.py"])
def test_systemd_unit_does_not_reload_code_that_does_not_start(tmp_path: Path, broken: str) -> None:
    unit = (ROOT / "deploy" / "heroes.service").read_text()
    [check, *_] = re.findall("^ExecReload=(.*)", unit, re.MULTILINE)
    command = shlex.split(check.replace("/opt/heroes/.venv/bin", str(Path(sys.executable).parent)))
    shutil.copytree(ROOT / "heroes", tmp_path / "heroes")
    for name in ("gunicorn.conf.py", "wsgi.py"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {"DATABASE_URL": "sqlite://"}
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=False).returncode == 0

    (tmp_path / broken).write_text("1 +")
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=False).returncode != 0
