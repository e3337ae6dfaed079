"""Settings come from the environment; an invalid one stops the start with one line."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from heroes.config import ConfigError, from_environment
from tests.constants import ROOT
from tests.servers import measured


def test_other_variables_are_ignored() -> None:
    assert from_environment({"HOME": "/", "port": "1"}) == from_environment({})


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
        ("CORS_ORIGINS", "://example.org", "Has an entry that is empty or not well-formed."),
        ("TRUSTED_HOSTS", "", "Must not be empty."),
        ("TRUSTED_HOSTS", "*", "Has an entry that is empty or not well-formed."),
        ("TRUSTED_HOSTS", "https://example.org", "Has an entry that is empty or not well-formed."),
        ("PROXY_HOPS", "-1", "Must be greater than or equal to 0."),
        ("PROXY_HOPS", "one", "Not a valid integer."),
        ("ACCESS_LOG", "maybe", "Not a valid boolean."),
        ("LOG_FORMAT", "xml", "Must be one of: json, text."),
        ("LOG_LEVEL", "loud", "Must be one of: info, debug, warning, error."),
        ("METRICS", "maybe", "Not a valid boolean."),
        ("DATABASE_TIMEOUT", "0", "Must be greater than or equal to 1 and less than or equal to 3600."),
        ("DATABASE_TIMEOUT", "1" * 30, "Must be greater than or equal to 1 and less than or equal to 3600."),
        ("MAX_CONTENT_LENGTH", "1M", "Not a valid integer."),
        ("GUNICORN_THREADS", "0", "Must be greater than or equal to 1 and less than or equal to 1000."),
        ("WEB_CONCURRENCY", "x", "Not a valid integer."),
        ("WEB_CONCURRENCY", "0", "Must be greater than or equal to 1 and less than or equal to 1000."),
        ("WEB_CONCURRENCY", "1001", "Must be greater than or equal to 1 and less than or equal to 1000."),
        ("MAX_REQUESTS", "-1", "Must be greater than or equal to 0."),
        ("MAX_REQUESTS", "1.5", "Not a valid integer."),
        ("PORT", "99999", "Must be greater than or equal to 0 and less than or equal to 65535."),
        ("PORT", "-1", "Must be greater than or equal to 0 and less than or equal to 65535."),
        ("PORT", "", "Not a valid integer."),
        ("BIND", "", "Must be host:port, unix:path or fd://number."),
        ("BIND", "junk", "Must be host:port, unix:path or fd://number."),
        ("BIND", "host:99999", "Must be host:port, unix:path or fd://number."),
        ("BIND", "host:http", "Must be host:port, unix:path or fd://number."),
        ("BIND", "host:80\n", "Must be host:port, unix:path or fd://number."),
        ("BIND", "::1:80", "Must be host:port, unix:path or fd://number."),
        ("BIND", "unix:", "Must be host:port, unix:path or fd://number."),
        ("BIND", "fd://x", "Must be host:port, unix:path or fd://number."),
        ("TRUSTED_HOSTS", "::1", "Has an entry that is empty or not well-formed."),
        ("TRUSTED_HOSTS", "[::1", "Has an entry that is empty or not well-formed."),
        ("SCRIPT_NAME", "api", "Must be an ASCII path without a slash at its end."),
        ("SCRIPT_NAME", "/api/", "Must be an ASCII path without a slash at its end."),
        ("SCRIPT_NAME", "//api", "Must be an ASCII path without a slash at its end."),
        ("SCRIPT_NAME", "/é", "Must be an ASCII path without a slash at its end."),
    ],
)
def test_invalid_setting_is_one_line_without_the_value(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_environment({name: value})

    assert error.value.message == f"{name}: {message}"


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("API_TOKENS", "a,b==", ["a", "b=="]),
        ("CORS_ORIGINS", "https://a.example,http://localhost:3000", ["https://a.example", "http://localhost:3000"]),
        ("TRUSTED_HOSTS", "a.example,.b.example,127.0.0.1,[::1]", ["a.example", ".b.example", "127.0.0.1", "[::1]"]),
        ("ACCESS_LOG", "off", False),
        ("TRUSTED_HOSTS", "[::1],[2001:db8::2]", ["[::1]", "[2001:db8::2]"]),
        ("TRUSTED_HOSTS", "heroes_web", ["heroes_web"]),
        ("CORS_ORIGINS", "http://heroes_web:8000", ["http://heroes_web:8000"]),
        ("BIND", "[::]:8000", "[::]:8000"),
        ("BIND", ":8000", ":8000"),
        ("BIND", "unix:/run/heroes.sock", "unix:/run/heroes.sock"),
        ("BIND", "fd://3", "fd://3"),
        ("PORT", "65535", 65535),
        ("SCRIPT_NAME", "/a/b", "/a/b"),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("METRICS", "1", True),
    ],
)
def test_setting_is_parsed(name: str, value: str, expected: object) -> None:
    key = "ALLOWED_HOSTS" if name == "TRUSTED_HOSTS" else name
    assert from_environment({name: value})[key] == expected


@pytest.mark.parametrize(
    ("environment", "settings"),
    [
        ({}, {"bind": "127.0.0.1:8000", "threads": 3, "max_requests": 0}),
        ({"PORT": "9000"}, {"bind": "127.0.0.1:9000"}),
        ({"PORT": "9000", "BIND": "[::]:80"}, {"bind": "[::]:80"}),
        ({"GUNICORN_THREADS": "5", "WEB_CONCURRENCY": "4"}, {"threads": 5, "workers": 4}),
        ({"MAX_REQUESTS": "1000"}, {"max_requests": 1000, "max_requests_jitter": 100}),
        ({"LOG_LEVEL": "DEBUG"}, {}),
    ],
)
def test_gunicorn_is_configured_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], settings: dict[str, object]
) -> None:
    for name, value in ({"TMPDIR": str(tmp_path)} | environment).items():
        monkeypatch.setenv(name, value)

    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))

    assert {name: gunicorn[name] for name in settings} == settings
    assert gunicorn["logconfig_dict"]["loggers"]["gunicorn.error"]["level"] == environment.get("LOG_LEVEL", "INFO")
    assert 1 <= gunicorn["workers"] <= 9
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert list(tmp_path.iterdir()) == []


def test_the_default_of_workers_counts_the_usable_cores() -> None:
    script = """
import os, runpy
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(runpy.run_path("gunicorn.conf.py")["workers"])
"""
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "3\n"


# One setting for each line that stops the start; the tests of the others need not be measured.
STOPPED_BY = {"LOG_LEVEL", "DATABASE_URL", "TMPDIR"}


@pytest.mark.parametrize(
    "name, value",
    [
        ("LOG_LEVEL", "loud"),
        ("DATABASE_URL", "sqlite:////no/such/folder/database.db"),
        ("PROMETHEUS_MULTIPROC_DIR", "/no/such/folder"),
        ("PROMETHEUS_MULTIPROC_DIR", sys.executable),
        ("TMPDIR", "/no/such/folder"),
    ],
)
def test_gunicorn_does_not_start_with_an_invalid_setting(name: str, value: str, tmp_path: Path) -> None:
    environment = {
        "WEB_CONCURRENCY": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/database.db",
        "BIND": "127.0.0.1:0",
        "METRICS": "1",
        name: value,
    }
    result = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=environment | (measured() if name in STOPPED_BY else {}),
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert result.returncode in (1, 3)
    lines = [line for line in result.stderr.decode().splitlines() if line.startswith("heroes: ")]
    assert lines
    assert {line.startswith(f"heroes: {name}: ") for line in lines} == {True}
    assert b"Traceback" not in result.stderr
