"""One line per request, and the request's id wherever it left a trace."""

import json
import re
import urllib.error
import urllib.request

import pytest
from flask import Flask

from heroes import create_app

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def started(monkeypatch, capsys):
    """Starts the service in memory; two routes of it fail and speak: started(LOG_FORMAT="text", …)."""

    def start(**environment: str) -> Flask:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})

        @app.get("/fail/<reason>")
        def fail(reason: str) -> None:
            raise RuntimeError("sorry")

        @app.get("/speak")
        def speak() -> dict[str, str]:
            app.logger.debug("at debug")
            app.logger.info("at info")
            app.logger.warning("at warning")
            return {}

        capsys.readouterr()
        return app

    return start


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
def test_one_json_line_per_request(started, capsys, method, path, route, status):
    response = started().test_client().open(path, method=method)

    out, err = capsys.readouterr()
    [line] = out.splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert 0 < record.pop("duration_ms") < 5000
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


def test_one_text_line_per_request(started, capsys):
    response = started(LOG_FORMAT="text").test_client().get("/heroes/1?secret")

    [line] = capsys.readouterr().out.splitlines()
    request_id = response.headers["X-Request-ID"]
    assert re.fullmatch(rf"[-0-9]+ [0-9:,]+ INFO {request_id} 127\.0\.0\.1 GET /heroes/<hero_id> 404 [0-9.]+ ms", line)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_off_drops_these_lines_alone(started, capsys, log_format):
    client = started(ACCESS_LOG="off", LOG_FORMAT=log_format).test_client()

    response = client.get("/speak")
    out, err = capsys.readouterr()
    assert out == ""
    assert [response.headers["X-Request-ID"] in line for line in err.splitlines()] == [True, True]


@pytest.mark.parametrize(
    "level, said",
    [("debug", ["debug", "info", "warning"]), ("INFO", ["info", "warning"]), ("warning", ["warning"]), ("error", [])],
)
def test_level_is_of_all_lines_but_the_requests(started, capsys, level, said):
    started(LOG_LEVEL=level).test_client().get("/speak")

    out, err = capsys.readouterr()
    assert [json.loads(line)["message"] for line in err.splitlines()] == [f"at {word}" for word in said]
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("given", ["a", "0" * 128, "3f2b-4c.5_X", "01ARZ3NDEKTSV4RRFFQ69G5FAV"])
def test_a_well_formed_id_is_taken_over(started, capsys, given):
    response = started().test_client().get("/speak", headers={"X-Request-ID": given})

    assert response.headers.getlist("X-Request-ID") == [given]
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in (out + err).splitlines()]
    assert [line["request_id"] for line in lines] == [given] * 3


@pytest.mark.parametrize("given", ["", " ", "0" * 129, "a b", 'a"b', "a;b", "<a>", "caf\u00e9", "a\tb", "a,b"])
def test_any_other_id_is_made_anew(started, capsys, given):
    response = started().test_client().get("/heroes/", headers={"X-Request-ID": given})

    assert MADE.fullmatch(response.headers["X-Request-ID"])
    assert json.loads(capsys.readouterr().out)["request_id"] == response.headers["X-Request-ID"]


def test_no_two_requests_have_one_id(started):
    client = started().test_client()

    assert len({client.get("/health/live").headers["X-Request-ID"] for _ in range(100)}) == 100


def test_an_unexpected_error_is_one_traceback_with_the_id(started, capsys):
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


def test_what_a_client_sends_begins_no_line(started, capsys):
    response = started(LOG_FORMAT="text").test_client().get("/fail/%0A2026-01-01 INFO forged%1B[2J")

    lines = capsys.readouterr().err.splitlines()
    assert response.headers["X-Request-ID"] in lines[0]
    assert "\\x0a2026-01-01 INFO forged\\x1b[2J" in lines[0]
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "RuntimeError: sorry"


def test_outside_of_requests_there_is_no_id(started, capsys):
    started().logger.warning("Hello")

    record = json.loads(capsys.readouterr().err)
    assert (record["message"], record["request_id"]) == ("Hello", "-")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_gunicorn_says_no_paths_at_any_level(serve):
    server = serve(LOG_LEVEL="debug")
    urllib.request.urlopen(f"{server.url}/heroes/?name=Sentinel", timeout=30).close()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/heroes/987654", timeout=30)
    refused.value.close()

    log = server.log.read_text()
    assert '"level":"DEBUG"' in log
    assert '"route":"/heroes/<hero_id>"' in log
    assert "Sentinel" not in log
    assert "987654" not in log


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_gunicorn_speaks_the_same_format(serve):
    server = serve(LOG_FORMAT="json", WEB_CONCURRENCY="2")

    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"gunicorn.error", "heroes.access"} <= {line["logger"] for line in lines}
    # One line per request, and none of gunicorn's own.
    assert [line["route"] for line in lines if "route" in line] == ["/health/live"]
