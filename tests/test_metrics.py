"""/metrics: requests, durations and connections in use, over several workers and after they have been replaced."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from heroes import __version__, create_app
from heroes.config import ConfigError
from heroes.extensions import db
from tests.client import Response, exchange
from tests.commands import run_flask
from tests.constants import HERO, ROOT, Query, sqlite_only
from tests.servers import Server, free_port, launch, measured, serving, wait_until

SECRET = HERO | {"secret_name": "Sentinel"}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Parse Prometheus' text to {(name, label value, …): value}, the labels in alphabetical order."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(server: Server) -> dict[tuple[str, ...], float]:
    """Return the samples once the files of all workers can be read."""
    found = wait_until(lambda: metrics_of(server))
    assert found is not None
    return samples(found.body.decode())


def metrics_of(server: Server) -> Response | None:
    """Return the response of /metrics, None if a worker that is starting makes it a 503."""
    response = server.client(keep_alive=False).send("GET", "/metrics")
    assert response.status in (200, 503)
    return response if response.status == 200 else None


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "METRICS": True, "GUNICORN_THREADS": 3})
    yield app
    with app.app_context():
        db.engine.dispose()


def test_requests_are_counted_and_timed(client: FlaskClient) -> None:
    client.post("/heroes/", json=SECRET)
    client.get("/heroes/1")
    client.get("/heroes/1")
    client.get("/heroes/Sentinel")
    client.get("/Sentinel")
    client.open("/", method="SENTINEL")

    response = client.get("/metrics")
    found = samples(response.text)
    counted = {key[1:]: value for key, value in found.items() if key[0] == "http_requests_total"}
    assert counted == {
        ("POST", "/heroes/", "200"): 1,
        ("GET", "/heroes/<hero_id>", "200"): 2,
        ("GET", "/heroes/<hero_id>", "422"): 1,
        ("GET", "unmatched", "404"): 1,
        ("other", "unmatched", "405"): 1,
    }
    for labels, count in counted.items():
        assert found["http_request_duration_seconds_count", *labels] == count
        assert 0 < found["http_request_duration_seconds_sum", *labels] < 5
        assert found["http_request_duration_seconds_bucket", "+Inf", *labels] == count
    assert response.mimetype == "text/plain"
    assert "sentinel" not in response.text.lower()


def test_gauges_show_connections_and_requests_in_flight(client: FlaskClient, app: Flask) -> None:
    with app.app_context(), db.engine.connect():
        found = samples(client.get("/metrics").text)

    assert found["db_connections_in_use",] == 1
    assert found["db_connections_max",] == 3
    assert found["http_requests_in_flight", "GET", "/metrics"] == 1
    found = samples(client.get("/metrics").text)
    assert found["db_connections_in_use",] == 0
    assert found["http_requests_in_flight", "GET", "/metrics"] == 1


@sqlite_only
def test_connections_that_fail_are_not_in_use(client: FlaskClient, database_url: str) -> None:
    assert client.get("/heroes/").status_code == 200
    Path(database_url.removeprefix("sqlite:///")).unlink()

    assert [client.get("/heroes/").status_code for _ in range(3)] == [503, 503, 503]
    assert samples(client.get("/metrics").text)["db_connections_in_use",] == 0


def test_build_info_has_the_versions(client: FlaskClient) -> None:
    python = ".".join(map(str, sys.version_info[:3]))

    assert samples(client.get("/metrics").text)["heroes_build_info", python, __version__] == 1


def test_operations_page_lists_every_metric(client: FlaskClient) -> None:
    page = (ROOT / "docs" / "operations" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)

    client.get("/health/live")
    found = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type): set(family.samples[0].labels)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        if not family.name.endswith("_created")  # only without PROMETHEUS_MULTIPROC_DIR
    }
    assert {(name, kind): set(re.findall(r"\w+", labels)) for name, kind, labels in rows} == {
        key: labels - {"le"} for key, labels in found.items()
    }


def test_requests_that_fail_leave_nothing_in_flight(client: FlaskClient, app: Flask) -> None:
    app.add_url_rule("/fail", view_func=lambda: str(1 / 0))

    assert client.get("/fail").status_code == 500
    found = samples(client.get("/metrics").text)
    assert found["http_requests_in_flight", "GET", "/fail"] == 0
    assert found["http_requests_total", "GET", "/fail", "500"] == 1


def test_apps_in_one_process_count_separately(client: FlaskClient) -> None:
    other = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True}).test_client()

    client.get("/heroes/")
    assert ("http_requests_total", "GET", "/heroes/", "200") not in samples(other.get("/metrics").text)


def test_multiprocess_folder_is_read_if_given(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))

    assert client.get("/metrics").text == ""

    # As a worker that is starting leaves it for a moment.
    file = folder / "counter_1.db"
    file.touch()
    response = client.get("/metrics")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")

    # As one that is removed between the listing of the folder and its reading.
    file.unlink()
    file.symlink_to("missing")
    response = client.get("/metrics")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


def test_metrics_need_a_token_if_everything_is_protected(database_url: str) -> None:
    settings = {"METRICS": True, "API_TOKENS": ["abc"], "API_TOKENS_PROTECT": "all"}
    client = create_app({"SQLALCHEMY_DATABASE_URI": database_url} | settings).test_client()

    assert client.get("/metrics").status_code == 401
    response = client.get("/metrics", headers={"Authorization": "Bearer abc"})
    assert samples(response.text)["http_requests_total", "GET", "/metrics", "401"] == 1


def test_metrics_are_off_by_default() -> None:
    client = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"}).test_client()

    assert client.get("/metrics").status_code == 404


@pytest.mark.parametrize("metrics", [False, True])
def test_metrics_are_not_in_the_document(metrics: bool) -> None:
    client = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": metrics}).test_client()

    assert "/metrics" not in client.get("/openapi.json").get_json()["paths"]


def test_missing_extra_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ConfigError, match=r"^METRICS: Needs pip install '\.\[metrics\]'$"):
        create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True})


@pytest.mark.parametrize("folder", ["", "/no/such/folder", sys.executable])
def test_directory_that_takes_no_files_is_a_config_error(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)

    with pytest.raises(ConfigError, match="^PROMETHEUS_MULTIPROC_DIR: No"):
        create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True})


@sqlite_only
def test_counts_of_replaced_workers_are_kept_until_the_stop(serve: Callable[..., Server], tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    settings = {"WEB_CONCURRENCY": "2", "GUNICORN_THREADS": "2", "TMPDIR": str(temporary), "ACCESS_LOG": "off"}
    server = serve(METRICS="1", **settings)

    def get(path: str) -> int:
        return server.client(keep_alive=False).send("GET", path).status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(get, ["/heroes/"] * 150)) == {200}
    key = ("http_requests_total", "GET", "/heroes/", "200")
    [folder] = temporary.glob("heroes-metrics-*")

    def alive() -> set[str]:
        return {str(worker.pid) for worker in server.workers()}

    def reloaded() -> dict[tuple[str, ...], float] | None:
        found = scrape(server)
        return found if alive().isdisjoint(before) and found["db_connections_max",] == 2 * 2 else None

    before = alive()
    for pid in before:
        (folder / f"summary_{pid}.db").touch()
    server.process.send_signal(signal.SIGHUP)
    # HUP replaces the two workers. Their counts are kept and their gauges are dropped.
    found = wait_until(reloaded)
    assert found is not None
    assert found[key] == 150
    assert found["http_request_duration_seconds_count", *key[1:]] == 150
    assert found["db_connections_max",] == 2 * 2
    assert found["db_connections_in_use",] == 0
    assert not [path for path in folder.glob("gauge_live*") if path.stem.rpartition("_")[2] in before]
    assert not list(folder.glob("summary_*"))

    assert server.stop() == 0
    assert list(temporary.iterdir()) == []


@sqlite_only
def test_with_preload_each_worker_counts_its_connections(serve: Callable[..., Server], tmp_path: Path) -> None:
    settings = {"WEB_CONCURRENCY": "3", "GUNICORN_THREADS": "2", "GUNICORN_CMD_ARGS": "--preload"}
    server = serve(METRICS="1", TMPDIR=str(tmp_path), **settings, **measured())

    wait_until(lambda: len(server.workers()) == 3 and scrape(server).get(("db_connections_max",)) == 3 * 2)
    assert scrape(server)["db_connections_in_use",] == 0

    # A worker that is killed while it makes a file leaves it empty.
    [folder] = tmp_path.glob("heroes-metrics-*")
    (folder / f"summary_{server.workers()[0].pid}.db").touch()
    metrics = server.client(keep_alive=False).send("GET", "/metrics")
    assert (metrics.status, metrics.headers["Retry-After"]) == (503, "1")
    assert server.stop() == 0


def test_a_command_leaves_no_gauges(sqlite_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    environment = {"METRICS": "1", "PROMETHEUS_MULTIPROC_DIR": str(folder)}

    assert run_flask(sqlite_url, "heroes", "export", "--format=csv", "-", env=environment).returncode == 0
    assert list(folder.glob("gauge_*")) == []


@sqlite_only
def test_service_survives_the_removal_of_the_folder(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(METRICS="1", TMPDIR=str(tmp_path), **measured())
    [folder] = tmp_path.glob("heroes-metrics-*")
    [worker] = server.workers()
    shutil.rmtree(folder)
    metrics = server.client(keep_alive=False).send("GET", "/metrics")
    assert (metrics.status, metrics.headers["Retry-After"]) == (503, "1")

    worker.kill()
    wait_until(lambda: worker not in server.workers() and server.answers())
    assert scrape(server)["db_connections_max",] == 3

    [worker] = server.workers()
    shutil.rmtree(folder)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: worker not in server.workers() and server.answers())
    assert scrape(server)["db_connections_max",] == 3
    assert server.stop() == 0


@sqlite_only
def test_folder_given_by_the_operator_is_kept(serve: Callable[..., Server], tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    settings = {"METRICS": "1", "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    for environment in (settings | measured(), settings):
        server = serve(**environment)
        assert scrape(server)["db_connections_max",] == 3
        assert server.stop() == 0
        assert (folder / "notes.txt").read_text() == "mine"


def test_worker_that_has_not_served_survives_the_removal_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    script = (
        "import shutil, heroes\n"
        "client = heroes.create_app({'SQLALCHEMY_DATABASE_URI': 'sqlite://', 'METRICS': True}).test_client()\n"
        f"shutil.rmtree({str(folder)!r})\n"
        f"print(client.post('/heroes/', json={SECRET!r}).status_code, client.get('/metrics').status_code)\n"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True)

    assert done.stdout == b"200 503\n"


@pytest.mark.parametrize("option", ["--check-config", "--daemon"])
def test_gunicorn_leaves_no_folder_if_it_does_not_stay_in_the_foreground(
    option: str, sqlite_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    settings = {"DATABASE_URL": sqlite_url, "BIND": "127.0.0.1:0", "METRICS": "1", "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--workers=1", f"--pid={tmp_path}/pid", option]
    subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, timeout=30, check=True)
    if option == "--daemon":
        pid = wait_until(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text()))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(folder.iterdir()))

    assert list(folder.iterdir()) == []


@sqlite_only
def test_abandoned_new_master_keeps_the_counts_of_the_old_one(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    port = free_port()
    settings = {"DATABASE_URL": database_url, "BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "1"}
    # By the script: after `python -m gunicorn` USR2 can't find gunicorn again.
    command = [str(Path(sys.executable).with_name("gunicorn")), "wsgi:app"]
    server = launch(command, settings | {"METRICS": "1", "TMPDIR": str(folder)}, port, tmp_path / "log")
    try:
        server.process.send_signal(signal.SIGUSR2)
        [new] = wait_until(lambda: [worker for worker in server.workers() if worker.children()])
        new.terminate()
        wait_until(lambda: new not in server.workers())

        assert len(list(folder.glob("heroes-metrics-*"))) == 1, "each master has a folder, and removes it"
        assert scrape(server)["db_connections_max",] == 3
        assert server.stop() == 0
        assert list(folder.glob("heroes-metrics-*")) == []
    finally:
        server.kill()


# Rejected before a view: the request, the status, and the route that is counted.
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "too large": (b"POST /heroes/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n", 413, "/heroes/"),
    "too large for no view": (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n", 413, "unmatched"),
    "a bad chunk": (b"POST /heroes/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "/heroes/"),
    "a bad Host": (b"POST /heroes/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "/heroes/"),
    "another Host": (b"POST /heroes/ HTTP/1.1\r\nHost: other\r\n\r\n", 400, "/heroes/"),
    "no Host": (b"POST /heroes/ HTTP/1.1\r\n\r\n", 400, "/heroes/"),
    "two slashes": (b"POST //heroes/ HTTP/1.1\r\nHost: h\r\n\r\n", 404, "/heroes/"),
    "an unknown path": (b"POST /sentinel HTTP/1.1\r\nHost: h\r\n\r\n", 404, "unmatched"),
    "another method": (b"POST /docs HTTP/1.1\r\nHost: h\r\n\r\n", 405, "unmatched"),
    "no token": (b"POST /heroes/ HTTP/1.1\r\nHost: h\r\n\r\n", 401, "/heroes/"),
    "no body": (b"POST /heroes/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\n\r\n", 422, "/heroes/"),
}


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("counting")
    settings = {"METRICS": "1", "TRUSTED_HOSTS": "h,127.0.0.1", "API_TOKENS": "t"}
    with serving(f"sqlite:///{folder / 'database.db'}", folder, **settings) as server:
        yield server


@pytest.mark.xdist_group("counting")
@pytest.mark.parametrize("case", REFUSED)
def test_rejected_request_is_counted_once_with_its_status(counting: Server, case: str) -> None:
    request, status, route = REFUSED[case]
    labels = ("POST", route, str(status))
    before = scrape(counting)

    assert exchange(counting.port, request).status == status
    found = scrape(counting)
    added = {
        key: value - before.get(key, 0)
        for key, value in found.items()
        if key[1:2] == ("POST",) and value != before.get(key, 0)
    }
    assert added.pop(("http_request_duration_seconds_sum", *labels)) > 0
    assert added == {("http_requests_total", *labels): 1, ("http_request_duration_seconds_count", *labels): 1}
    assert {value for key, value in found.items() if key[0] == "http_requests_in_flight" and key[1] == "POST"} == {0}


@sqlite_only
def test_database_error_is_counted_once_as_503(client: FlaskClient, query: Query) -> None:
    query("ALTER TABLE hero RENAME TO hidden")
    try:
        assert client.get("/heroes/").status_code == 503
    finally:
        query("ALTER TABLE hidden RENAME TO hero")

    assert samples(client.get("/metrics").text)["http_requests_total", "GET", "/heroes/", "503"] == 1


def test_a_context_that_never_serves_a_request_counts_nothing() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True})
    with app.test_request_context("/heroes/"):
        pass

    assert 'http_requests_in_flight{method="GET",route="/heroes/"}' not in app.test_client().get("/metrics").text
