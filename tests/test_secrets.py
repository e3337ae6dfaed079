"""A secret_name goes in and never comes out: in no answer, header, log line, metric, error or repr."""

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from conftest import Server
from flask import Flask
from flask.testing import FlaskClient

from heroes.models import Hero
from heroes.schemas import HeroCreate, HeroUpdate

SECRET = "Sentinel-7f3a"
HERO = {"name": "Deadpond", "age": 30, "secret_name": SECRET}
Query = Callable[[str], list[tuple[object, ...]]]

# Every operation and every error that a client can cause: (method, path, body, headers).
REQUESTS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/heroes/", HERO, {}),
    ("POST", "/heroes/", HERO, {"Idempotency-Key": "k"}),
    ("POST", "/heroes/", HERO, {"Idempotency-Key": "k"}),
    ("POST", "/heroes/", HERO | {"secret_name": SECRET * 2}, {"Idempotency-Key": "k"}),
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
    ("POST", "/heroes/", HERO | {"secret_name": SECRET * 50}, {}),
    ("POST", "/heroes/", HERO | {"secret_name": SECRET + "\0"}, {}),
    ("POST", "/heroes/", SECRET, {}),
    ("POST", "/heroes/", HERO, {"Content-Type": "text/plain"}),
    ("PUT", "/heroes/1", HERO, {}),
    ("POST", "/nowhere", HERO, {}),
    ("DELETE", "/heroes/1", HERO, {}),
]


def test_no_answer_and_no_log_has_it(client: FlaskClient, caplog: pytest.LogCaptureFixture, query: Query) -> None:
    caplog.set_level(logging.DEBUG)
    answers = []
    for method, path, body, headers in REQUESTS:
        response = client.open(path, method=method, json=body, headers=headers)
        answers.append(f"{response.headers} {response.text}")
    broken = client.post("/heroes/", data=json.dumps(HERO)[:-1], content_type="application/json")
    # A fault of the database, with the secret among the statement's values.
    query("ALTER TABLE hero RENAME TO hidden")
    try:
        client.application.config["PROPAGATE_EXCEPTIONS"] = False
        fault = client.post("/heroes/", json=HERO)
    finally:
        query("ALTER TABLE hidden RENAME TO hero")

    assert broken.status_code == 422
    assert fault.status_code in (500, 503)
    assert "INSERT INTO hero" in caplog.text
    for text in (*answers, broken.text, fault.text, caplog.text, str(caplog.records)):
        assert SECRET not in text


def test_no_line_of_gunicorn_and_no_metric_has_it(serve: Callable[..., Server]) -> None:
    server = serve(METRICS="1", LOG_LEVEL="debug")
    for method, path, body, headers in REQUESTS:
        request = Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)
        request.method = method
        try:
            urlopen(request, timeout=10).close()
        except HTTPError as error:
            assert error.code < 500
            error.close()
    with urlopen(f"{server.url}/metrics", timeout=10) as response:
        metrics = response.read().decode()
    server.stop()

    assert 'route="/heroes/"' in metrics
    assert "POST" in server.log.read_text()
    assert SECRET not in metrics
    assert SECRET not in server.log.read_text()


@pytest.mark.parametrize("thing", [Hero(**HERO), HeroCreate(), HeroUpdate()], ids=lambda thing: type(thing).__name__)
def test_no_repr_has_it(thing: object) -> None:
    assert SECRET not in repr(thing)


def test_what_the_app_keeps_of_a_refused_body_does_not_have_it(app: Flask) -> None:
    from marshmallow import ValidationError

    with pytest.raises(ValidationError) as caught:
        HeroCreate().load({"secret_name": SECRET, "age": SECRET})

    assert SECRET not in repr(caught.value) + str(vars(caught.value))
