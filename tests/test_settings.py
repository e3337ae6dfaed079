"""Settings come from the environment, are named in one table, and end the start in one line where they are wrong."""

import runpy
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from heroes.config import ConfigError, Settings, from_environment

ROOT = Path(__file__).parent.parent


def test_defaults():
    assert from_environment({}) == from_environment({"HOME": "/", "heroes": "ignored"})


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("API_TOKENS", "", "Must not be empty."),
        ("API_TOKENS", "secret,", "Has an entry that is empty or not well-formed."),
        ("API_TOKENS", "secret, other", "Has an entry that is empty or not well-formed."),
        ("API_TOKENS", "se=cret", "Has an entry that is empty or not well-formed."),
        ("API_TOKENS", "secret\n", "Has an entry that is empty or not well-formed."),
        ("API_TOKENS_PROTECT", "reads", "Must be one of: writes, all."),
        ("CORS_ORIGINS", "", "Must not be empty."),
        ("CORS_ORIGINS", "example.org", "Has an entry that is empty or not well-formed."),
        ("CORS_ORIGINS", "https://example.org/", "Has an entry that is empty or not well-formed."),
        ("CORS_ORIGINS", "https://*.example.org", "Has an entry that is empty or not well-formed."),
        ("TRUSTED_HOSTS", "", "Must not be empty."),
        ("TRUSTED_HOSTS", "*", "Has an entry that is empty or not well-formed."),
        ("TRUSTED_HOSTS", "https://example.org", "Has an entry that is empty or not well-formed."),
        ("PROXY_HOPS", "-1", "Must be greater than or equal to 0."),
        ("PROXY_HOPS", "one", "Not a valid integer."),
        ("ACCESS_LOG", "maybe", "Not a valid boolean."),
        ("LOG_FORMAT", "xml", "Must be one of: json, text."),
        ("LOG_LEVEL", "loud", "Must be one of: info, debug, warning, error."),
        ("METRICS", "maybe", "Not a valid boolean."),
        ("DATABASE_TIMEOUT", "0", "Must be greater than or equal to 1."),
        ("MAX_CONTENT_LENGTH", "1M", "Not a valid integer."),
        ("GUNICORN_THREADS", "0", "Must be greater than or equal to 1."),
    ],
)
def test_a_wrong_setting_is_one_line_that_never_shows_it(name, value, message):
    with pytest.raises(ConfigError) as error:
        from_environment({name: value})

    assert error.value.message == f"{name}: {message}"


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("API_TOKENS", "a,b==", ["a", "b=="]),
        ("CORS_ORIGINS", "https://a.example,http://localhost:3000", ["https://a.example", "http://localhost:3000"]),
        ("TRUSTED_HOSTS", "a.example,.b.example,127.0.0.1", ["a.example", ".b.example", "127.0.0.1"]),
        ("ACCESS_LOG", "off", False),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("METRICS", "1", True),
    ],
)
def test_a_setting_is_read(name, value, expected):
    assert from_environment({name: value})[name] == expected


def test_gunicorn_has_the_same_defaults(monkeypatch):
    for field in Settings().fields.values():
        monkeypatch.delenv(str(field.data_key), raising=False)
    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    settings = from_environment({})

    assert gunicorn["bind"] == f"127.0.0.1:{settings['PORT']}"
    assert gunicorn["threads"] == settings["GUNICORN_THREADS"]
    assert gunicorn["max_requests"] == settings["MAX_REQUESTS"]
    assert gunicorn["loglevel"] == settings["LOG_LEVEL"]
    assert "PROMETHEUS_MULTIPROC_DIR" not in gunicorn["os"].environ


def test_gunicorn_reads_its_settings_again_without_a_trace_of_the_first_time():
    first, second = (runpy.run_path(str(ROOT / "gunicorn.conf.py")) for _ in range(2))

    # On HUP the master does that: what requests go through must not grow with each time.
    assert len(second["Response"].__mro__) == len(first["Response"].__mro__) == 3


def test_where_there_is_no_epoll_gunicorn_s_own_worker_serves(monkeypatch):
    monkeypatch.delattr("select.epoll")

    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["worker_class"] == "gthread"


@pytest.mark.parametrize(
    "name, value", [("API_TOKENS", ""), ("LOG_LEVEL", "loud"), ("WEB_CONCURRENCY", "0"), ("PORT", "http")]
)
def test_gunicorn_does_not_start_with_a_wrong_setting(name, value, tmp_path):
    environment = {
        "WEB_CONCURRENCY": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/database.db",
        "BIND": "127.0.0.1:0",
        name: value,
    }
    result = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert result.returncode in (1, 3)
    lines = [line for line in result.stderr.decode().splitlines() if line.startswith("heroes: ")]
    assert lines
    assert {line.startswith(f"heroes: {name}: ") for line in lines} == {True}
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_pinned_workers_are_spread_over_the_cores(serve):
    server = serve(PIN_WORKERS="1", WEB_CONCURRENCY="3", ACCESS_LOG="off")
    master = psutil.Process(server.process.pid)

    def spread():
        deadline = time.monotonic() + 20
        while True:
            workers = master.children()
            cores = [worker.cpu_affinity() for worker in workers]
            if len(workers) == 3 and all(len(own) == 1 for own in cores) or time.monotonic() > deadline:
                return workers, Counter(core for [core] in cores)
            time.sleep(0.05)

    workers, taken = spread()
    assert sum(taken.values()) == 3
    assert max(taken.values()) - min(taken.get(core, 0) for core in master.cpu_affinity()) <= 1
    for worker in workers[:2]:
        worker.kill()
        worker.wait()
        _, taken = spread()
        assert max(taken.values()) - min(taken.get(core, 0) for core in master.cpu_affinity()) <= 1
    assert server.answers()
