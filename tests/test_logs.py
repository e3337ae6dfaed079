"""The log has one line per request; each line of a request has its id."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from http.client import HTTPException
from logging.config import dictConfig
from typing import Any, NoReturn

import pytest
from flask import Flask
from gunicorn.config import Config

from heroes.config import from_environment
from heroes.operations.gunicorn_logger import Logger
from heroes.operations.logs import logging_config
from tests.client import exchange
from tests.constants import ROOT, sqlite_only
from tests.servers import Server

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_app: Callable[..., Flask]
) -> Iterator[Any]:
    """Start the service; two of its routes fail and log: started(LOG_FORMAT="text", …)."""

    def start(**environment: str) -> Flask:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = from_environment(os.environ)
        dictConfig(logging_config(settings["LOG_LEVEL"], settings["LOG_FORMAT"]))
        app = new_app()

        @app.get("/fail/<reason>")
        def fail(reason: str) -> NoReturn:
            raise RuntimeError("sorry")

        @app.get("/speak")
        def speak() -> dict[str, str]:
            app.logger.debug("at debug")
            app.logger.info("at info")
            app.logger.warning("at warning")
            return {}

        capsys.readouterr()
        return app

    yield start
    for name in (None, "heroes", "heroes.access", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING if name is None else logging.NOTSET)
        logger.propagate = True


@pytest.mark.parametrize(
    "method, path, route, status",
    [
        ("GET", "/heroes/?name=Sentinel", "/heroes/", 200),
        ("GET", "/heroes/1", "/heroes/<hero_id>", 404),
        ("PATCH", "/heroes/x", "/heroes/<hero_id>", 422),
        ("PUT", "/heroes/1", "unmatched", 405),
        ("GET", "/Sentinel", "unmatched", 404),
        ("HEAD", "/docs", "/docs", 200),
    ],
)
def test_one_json_line_per_request(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], method: str, path: str, route: str, status: int
) -> None:
    response = started().test_client().open(path, method=method)

    out, err = capsys.readouterr()
    [line] = out.splitlines()
    record = json.loads(line)
    [example] = re.findall(r"```json\n(.*)\n```", (ROOT / "docs" / "operations" / "README.md").read_text())
    assert list(record) == list(json.loads(example))
    assert record.pop("time").endswith("+00:00")
    assert 0 < record.pop("duration_ms") < 5000
    assert record.pop("process") == os.getpid()
    assert MADE.fullmatch(record["request_id"])
    assert record.pop("request_id") == response.headers["X-Request-ID"]
    assert record.pop("message").startswith(f"127.0.0.1 {method} {route} {status} ")
    assert record == {
        "level": "INFO",
        "logger": "heroes.access",
        "client": "127.0.0.1",
        "method": method,
        "route": route,
        "status": status,
    }
    assert "Sentinel" not in out + err


def test_one_text_line_per_request(started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    response = started(LOG_FORMAT="text").test_client().get("/heroes/1?secret")

    [line] = capsys.readouterr().out.splitlines()
    request_id = response.headers["X-Request-ID"]
    assert re.fullmatch(
        rf"[-0-9]+ [0-9:,]+ INFO \[{os.getpid()}\] {request_id} 127\.0\.0\.1 GET /heroes/<hero_id> 404 [0-9.]+ ms", line
    )


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_access_log_off_drops_only_request_lines(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    client = started(ACCESS_LOG="off", LOG_FORMAT=log_format).test_client()

    response = client.get("/speak")
    out, err = capsys.readouterr()
    assert out == ""
    assert [response.headers["X-Request-ID"] in line for line in err.splitlines()] == [True, True]


@pytest.mark.parametrize(
    "level, said",
    [("debug", ["debug", "info", "warning"]), ("INFO", ["info", "warning"]), ("warning", ["warning"]), ("error", [])],
)
def test_log_level_does_not_affect_request_lines(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], level: str, said: list[str]
) -> None:
    started(LOG_LEVEL=level).test_client().get("/speak")

    out, err = capsys.readouterr()
    assert [json.loads(line)["message"] for line in err.splitlines()] == [f"at {word}" for word in said]
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("given", ["a", "0" * 128, "3f2b-4c.5_X", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_well_formed_request_id_is_kept(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], given: str
) -> None:
    response = started().test_client().get("/speak", headers={"X-Request-ID": given})

    assert response.headers.getlist("X-Request-ID") == [given]
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in (out + err).splitlines()]
    assert [line["request_id"] for line in lines] == [given] * 3


@pytest.mark.parametrize("given", ["", " ", "0" * 129, "a b", 'a"b', "a;b", "<a>", "caf\u00e9", "a\tb", "a,b"])
def test_malformed_request_id_is_replaced(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], given: str
) -> None:
    response = started().test_client().get("/heroes/", headers={"X-Request-ID": given})

    assert MADE.fullmatch(response.headers["X-Request-ID"])
    assert json.loads(capsys.readouterr().out)["request_id"] == response.headers["X-Request-ID"]


def test_request_ids_are_unique(started: Callable[..., Flask]) -> None:
    client = started().test_client()

    assert len({client.get("/health/live").headers["X-Request-ID"] for _ in range(100)}) == 100


def test_an_unexpected_error_is_one_traceback_with_the_id(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    response = started().test_client().get("/fail/x")

    assert response.status_code == 500
    assert response.json == {"detail": "Internal Server Error"}
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    record = json.loads(line)
    assert record["level"] == "ERROR"
    assert record["request_id"] == response.headers["X-Request-ID"]
    assert record["exc_info"].startswith("Traceback ")
    assert record["exc_info"].endswith("RuntimeError: sorry")
    assert json.loads(out)["status"] == 500


def test_client_input_starts_no_log_line(started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    app = started(LOG_FORMAT="text")
    app.logger.warning("%s", "\n2026-01-01 INFO forged\x1b[2J\x852026-01-01 INFO forged\x9b2J")

    [line] = capsys.readouterr().err.splitlines()
    assert "\\x0a2026-01-01 INFO forged\\x1b[2J\\x852026-01-01 INFO forged\\x9b2J" in line


def test_what_orjson_can_not_encode_is_logged(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    started().logger.warning("%s", "\ud800", extra={"big": 2**70})

    record = json.loads(capsys.readouterr().err)
    assert (record["message"], record["big"], record["request_id"]) == ("\ud800", 2**70, "-")
    assert "T" in record["time"]


def test_lines_outside_requests_have_no_id(started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    started().logger.warning("Hello")

    record = json.loads(capsys.readouterr().err)
    assert (record["message"], record["request_id"]) == ("Hello", "-")


@sqlite_only
def test_gunicorn_logs_in_the_same_format_and_no_paths_at_any_level(serve: Callable[..., Server]) -> None:
    server = serve(LOG_FORMAT="json", LOG_LEVEL="debug")
    client = server.client(keep_alive=False)
    assert client.send("GET", "/heroes/?name=Sentinel").status == 200
    assert client.send("GET", "/heroes/987654").status == 404
    assert server.stop() == 0

    log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"gunicorn.error", "heroes.access"} <= {line["logger"] for line in lines}
    assert "DEBUG" in {line["level"] for line in lines}
    # One line per request, and none of gunicorn's own.
    routes = [line["route"] for line in lines if "route" in line]
    assert [route for route in routes if route != "/health/live"] == ["/heroes/", "/heroes/<hero_id>"]
    assert "Sentinel" not in log
    assert "987654" not in log


@sqlite_only
def test_lines_have_the_request_id_if_gunicorn_calls_the_factory(serve: Callable[..., Server]) -> None:
    server = serve(server="factory", LOG_FORMAT="json")
    server.client(keep_alive=False).send("GET", "/heroes/", headers={"X-Request-ID": "mine"})
    assert server.stop() == 0

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line["request_id"] for line in lines if line.get("route") == "/heroes/"] == ["mine"]


@pytest.mark.parametrize(
    "setting, value, enabled",
    [("logconfig_dict", {"version": 1}, False), ("accesslog", "-", True), ("syslog", True, True)],
)
def test_gunicorn_composes_access_lines_only_if_asked(setting: str, value: Any, enabled: bool) -> None:
    logger = Logger.__new__(Logger)  # without its set-up, which would configure the loggers of this process
    logger.cfg = Config()
    logger.cfg.set(setting, value)

    assert logger.access_log_enabled is enabled
    # gunicorn's method needs a response and a request, if it does anything.
    with pytest.raises(AttributeError) if enabled else nullcontext():
        logger.access(None, None, {}, None)


START, HOST_LINE = b"POST /heroes/ HTTP/1.1", b"Host: h"
SENTINEL_BODY = b'{"name": "Sentinel", "secret_name": "Sentinel"}'


def message(*lines: bytes, start: bytes = START, body: bytes = SENTINEL_BODY) -> bytes:
    return b"\r\n".join((start, HOST_LINE, *lines)) + b"\r\n\r\n" + body


LENGTH = b"Content-Length: %d" % len(SENTINEL_BODY)
# Requests with the sentinel in each place that gunicorn, Flask or the app could quote.
QUOTABLE: dict[str, bytes] = {
    "a Content-Length that is too short": message(b"Content-Length: 15"),
    "one that leaves a method": message(b"Content-Length: 0", body=b"SentinelGET /heroes/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "one that leaves a method in upper case": message(
        b"Content-Length: 0", body=b"SENTINEL /x HTTP/1.1\r\nHost: h\r\n\r\n"
    ),
    "one that is too long": message(b"Content-Length: 999"),
    "a Content-Length that is no number": message(b"Content-Length: Sentinel"),
    "two of them": message(LENGTH, LENGTH + b"1"),
    "a space in the target": message(LENGTH, start=b"POST /heroes/?name=Sentinel Sentinel HTTP/1.1"),
    "a version that is none": message(LENGTH, start=b"POST /heroes/ Sentinel/1.1"),
    "a method that is none": message(LENGTH, start=b"Sent(inel /Sentinel HTTP/1.1"),
    "an unknown method": message(LENGTH, start=b"Sentinel /Sentinel HTTP/1.1"),
    "a target that is none": message(LENGTH, start=b"GET http://[Sentinel HTTP/1.1"),
    "a long target": message(LENGTH, start=b"GET /" + b"Sentinel" * 2000 + b" HTTP/1.1"),
    "only a start": b"Sentinel\r\n\r\n",
    "a header without a colon": message(LENGTH, b"Sentinel"),
    "a header with a space": message(LENGTH, b"Sentinel : x"),
    "a value with NUL": message(LENGTH, b"X: Sentinel\0"),
    "a folded header": message(LENGTH, b"X: x\r\n Sentinel"),
    "a long header": message(LENGTH, b"Sentinel: " + b"Sentinel" * 2000),
    "many headers": message(LENGTH, *[b"Sentinel-%d: x" % number for number in range(200)]),
    "a header with an underscore": message(LENGTH, b"Sentinel_x: Sentinel"),
    "an unknown Transfer-Encoding": message(b"Transfer-Encoding: Sentinel"),
    "an unknown Expect": message(LENGTH, b"Expect: Sentinel"),
    "an unknown Upgrade": message(LENGTH, b"Connection: upgrade", b"Upgrade: Sentinel"),
    "a bad chunk size": message(b"Transfer-Encoding: chunked", body=b"Sentinel\r\n" + SENTINEL_BODY),
    "a bad chunk end": message(b"Transfer-Encoding: chunked", body=b"1\r\nxSentinel\r\n"),
    "a bad chunk extension": message(b"Transfer-Encoding: chunked", body=b"1;Sent\rinel\r\nx\r\n0\r\n\r\n"),
    "a bad trailer": message(b"Transfer-Encoding: chunked", body=b"0\r\nSentinel\r\n\r\n"),
    "a bad Host": message(LENGTH).replace(b"Host: h", b"Host: Sentinel Sentinel"),
    "X-Request-ID": message(LENGTH, b"X-Request-ID: Sentinel Sentinel"),
    "Authorization": message(LENGTH, b"Authorization: Bearer Sentinel"),
    "Idempotency-Key": message(LENGTH, b"Idempotency-Key: Sentinel"),
    "Range": message(b"Range: Sentinel", start=b"GET /docs HTTP/1.1", body=b""),
    "If-None-Match": message(b'If-None-Match: "Sentinel"', start=b"GET /docs/assets/swagger-ui.css HTTP/1.1", body=b""),
    "NUL in the path": message(LENGTH, start=b"POST /Sentinel%00 HTTP/1.1"),
    "a file that is none": message(start=b"GET /docs/assets/%00Sentinel HTTP/1.1", body=b""),
    "a long file": message(start=b"GET /docs/assets/" + b"Sentinel" * 100 + b" HTTP/1.1", body=b""),
    "a slash in a path": message(start=b"GET /heroes//Sentinel HTTP/1.1", body=b""),
    "a broken connection": message(b"Content-Length: 999999", b"Sentinel: Sentinel"),
    "TLS": b"\x16\x03\x01Sentinel\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSentinel\r\n\r\n",
    "the PROXY protocol": b"PROXY TCP4 Sentinel Sentinel 1 2\r\n" + message(LENGTH),
}


@sqlite_only
@pytest.mark.parametrize(("worker_class", "log_format"), [("gthread", "json"), ("gevent", "text")])
def test_gunicorn_logs_no_byte_of_a_request(serve: Callable[..., Server], worker_class: str, log_format: str) -> None:
    server = serve(LOG_LEVEL="debug", LOG_FORMAT=log_format, GUNICORN_CMD_ARGS=f"--worker-class {worker_class}")

    logged, seen = {}, 0
    for case, request in QUOTABLE.items():
        with suppress(OSError, HTTPException):
            exchange(server.port, request, end=True)
        assert server.answers(), case
        log = server.log.read_text()
        found, seen = log[seen:], len(log)
        if re.search("sentinel|inel", found, re.IGNORECASE):
            logged[case] = found
    assert logged == {}
    assert server.stop() == 0
    assert "sentinel" not in server.log.read_text().lower()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_unexpected_error_is_logged_without_its_path(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    response = started(LOG_FORMAT=log_format).test_client().get("/fail/Sentinel?Sentinel")

    out, err = capsys.readouterr()
    assert response.status_code == 500
    assert "RuntimeError: sorry" in err
    assert "Sentinel" not in out + err


def test_an_unknown_method_is_not_logged(started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    started().test_client().open("/heroes/", method="SENTINEL")

    out, _ = capsys.readouterr()
    assert json.loads(out)["method"] == "other"
    assert "SENTINEL" not in out


def test_the_text_of_gunicorn_s_exceptions_is_left_out(
    started: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    started()
    logging.getLogger("gunicorn.error").info("Ignored premature client disconnection. %s", OSError("Sentinel"))

    err = capsys.readouterr().err
    assert "disconnection. OSError" in err
    assert "Sentinel" not in err
