"""A secret_name is in no response, header, log line, metric or error."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from heroes.schemas import HeroCreate
from tests.constants import HERO, Query, sqlite_only
from tests.servers import Server

SECRET = "Sentinel-7f3a"
HIDDEN = HERO | {"age": 30, "secret_name": SECRET}

# Every operation and every error that a client can cause: (method, path, body, headers).
REQUESTS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/heroes/", HIDDEN, {}),
    ("POST", "/heroes/", HIDDEN, {"Idempotency-Key": "k"}),
    ("POST", "/heroes/", HIDDEN, {"Idempotency-Key": "k"}),
    ("POST", "/heroes/", HIDDEN | {"secret_name": SECRET * 2}, {"Idempotency-Key": "k"}),
    ("GET", "/heroes/1", None, {}),
    ("GET", "/heroes/", None, {"Prefer": "count=exact"}),
    ("GET", "/heroes/?sort=name&limit=1", None, {}),
    ("PATCH", "/heroes/1", {"secret_name": SECRET + "!"}, {}),
    ("PATCH", "/heroes/1", {"secret_name": SECRET}, {"If-Match": '"77"'}),
    ("PATCH", "/heroes/77", {"secret_name": SECRET}, {}),
    ("PATCH", "/heroes/x", {"secret_name": SECRET, "age": "x"}, {}),
    ("POST", "/heroes/", {"secret_name": SECRET}, {}),
    ("POST", "/heroes/", {"name": 5, "age": [SECRET], "secret_name": SECRET}, {}),
    ("POST", "/heroes/", {"name": "n", "age": SECRET, "secret_name": [SECRET]}, {}),
    ("POST", "/heroes/", HIDDEN | {"secret_name": SECRET * 50}, {}),
    ("POST", "/heroes/", HIDDEN | {"secret_name": SECRET + "\0"}, {}),
    ("POST", "/heroes/", SECRET, {}),
    ("POST", "/heroes/", HIDDEN, {"Content-Type": "text/plain"}),
    ("PUT", "/heroes/1", HIDDEN, {}),
    ("POST", "/nowhere", HIDDEN, {}),
    ("DELETE", "/heroes/1", HIDDEN, {}),
]


def test_responses_and_logs_do_not_contain_the_secret(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, query: Query
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = []
    for method, path, body, headers in REQUESTS:
        response = client.open(path, method=method, json=body, headers=headers)
        answers.append(f"{response.headers} {response.text}")
    broken = client.post("/heroes/", data=json.dumps(HIDDEN)[:-1], content_type="application/json")
    # A database error, with the secret among the statement's values.
    query("ALTER TABLE hero RENAME TO hidden")
    try:
        client.application.config["PROPAGATE_EXCEPTIONS"] = False
        fault = client.post("/heroes/", json=HIDDEN)
    finally:
        query("ALTER TABLE hidden RENAME TO hero")

    assert broken.status_code == 422
    assert fault.status_code == 503
    assert "INSERT INTO hero" in caplog.text
    for text in (*answers, broken.text, fault.text, caplog.text, str(caplog.records)):
        assert SECRET not in text


@sqlite_only
def test_gunicorn_log_and_metrics_do_not_contain_the_secret(serve: Callable[..., Server]) -> None:
    server = serve(METRICS="1", LOG_LEVEL="debug")
    client = server.client(keep_alive=False)
    for method, path, body, headers in REQUESTS:
        assert client.send(method, path, body, headers).status < 500
    metrics = client.send("GET", "/metrics").body.decode()
    server.stop()

    assert 'route="/heroes/"' in metrics
    assert "POST" in server.log.read_text()
    assert SECRET not in metrics
    assert SECRET not in server.log.read_text()


def test_validation_error_does_not_contain_the_secret(app: Flask) -> None:
    from marshmallow import ValidationError

    with pytest.raises(ValidationError) as caught:
        HeroCreate().load({"secret_name": SECRET, "age": SECRET})

    assert SECRET not in repr(caught.value) + str(caught.value)
