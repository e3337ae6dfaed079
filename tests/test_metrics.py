"""/metrics: what was asked, how long it took, what is in use; right over several workers and after they are gone."""

import os
import signal
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heroes import __version__, create_app
from heroes.config import ConfigError
from heroes.extensions import db

HERO = {"name": "Deadpond", "secret_name": "Sentinel"}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Prometheus' text as {(name, label value, …): value}, the labels in alphabetical order."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(server) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
        return samples(response.read().decode())


@pytest.fixture
def app(database_url):
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "METRICS": True, "GUNICORN_THREADS": 3})
    yield app
    with app.app_context():
        db.engine.dispose()


def test_requests_are_counted_and_timed(client):
    client.post("/heroes/", json=HERO)
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


def test_what_is_in_use(client, app):
    with app.app_context(), db.engine.connect():
        found = samples(client.get("/metrics").text)

    assert found["db_connections_in_use",] == 1
    assert found["db_connections_max",] == 3
    assert found["http_requests_in_flight", "GET", "/metrics"] == 1
    found = samples(client.get("/metrics").text)
    assert found["db_connections_in_use",] == 0
    assert found["http_requests_in_flight", "GET", "/metrics"] == 1


def test_build(client):
    python = ".".join(map(str, sys.version_info[:3]))

    assert samples(client.get("/metrics").text)["heroes_build_info", python, __version__] == 1


def test_requests_that_fail_leave_nothing_in_flight(client, app):
    app.add_url_rule("/fail", view_func=lambda: 1 / 0)

    assert client.get("/fail").status_code == 500
    found = samples(client.get("/metrics").text)
    assert found["http_requests_in_flight", "GET", "/fail"] == 0
    assert found["http_requests_total", "GET", "/fail", "500"] == 1


def test_two_apps_count_apart(client):
    other = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True}).test_client()

    client.get("/heroes/")
    assert ("http_requests_total", "GET", "/heroes/", "200") not in samples(other.get("/metrics").text)


def test_all_workers_are_asked_where_there_may_be_several(client, monkeypatch, tmp_path):
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))

    assert client.get("/metrics").text == ""


def test_tokens_for_everything_are_for_metrics_too(database_url):
    settings = {"METRICS": True, "API_TOKENS": ["abc"], "API_TOKENS_PROTECT": "all"}
    client = create_app({"SQLALCHEMY_DATABASE_URI": database_url} | settings).test_client()

    assert client.get("/metrics").status_code == 401
    response = client.get("/metrics", headers={"Authorization": "Bearer abc"})
    assert samples(response.text)["http_requests_total", "GET", "/metrics", "401"] == 1


def test_off_by_default():
    client = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"}).test_client()

    assert client.get("/metrics").status_code == 404
    assert "/metrics" not in client.get("/openapi.json").json["paths"]


def test_no_part_of_the_api(client):
    assert "/metrics" not in client.get("/openapi.json").json["paths"]


def test_without_the_extra_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ConfigError, match=r"^METRICS: Needs the extra: pip install heroes\[metrics\]$"):
        create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://", "METRICS": True})


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_right_over_several_workers_and_after_they_are_gone(serve, tmp_path):
    server = serve(
        METRICS="1",
        WEB_CONCURRENCY="2",
        GUNICORN_THREADS="2",
        TMPDIR=str(tmp_path),
        ACCESS_LOG="off",
    )

    def get(path: str) -> int:
        with urllib.request.urlopen(server.url + path, timeout=30) as response:
            return int(response.status)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(get, ["/heroes/"] * 150)) == {200}
    key = ("http_requests_total", "GET", "/heroes/", "200")
    [folder] = tmp_path.glob("heroes-metrics-*")

    def alive() -> set[str]:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        return {"dead", *children.read_text().split()}

    before = alive()
    os.kill(server.process.pid, signal.SIGHUP)
    # HUP starts two new workers and ends the two old ones, whose counts are kept and whose files are not.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = scrape(server)
        if alive() & before == {"dead"} and found["db_connections_max",] == 2 * 2:
            break
        time.sleep(0.2)
    assert found[key] == 150
    assert found["http_request_duration_seconds_count", *key[1:]] == 150
    assert found["db_connections_max",] == 2 * 2
    assert found["db_connections_in_use",] == 0
    assert (folder / "histogram_dead.db").exists()
    assert {path.stem.rpartition("_")[2] for path in folder.iterdir()} <= alive()

    assert server.stop() == 0
    assert list(tmp_path.glob("heroes-metrics-*")) == []
