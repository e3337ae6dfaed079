"""A body is whole or refused, whatever reads it and whether or not a view wants it; see test_wire.py for gunicorn."""

import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient

HERO = json.dumps({"name": "Deadpond", "secret_name": "Dive Wilson"}).encode()
LIMIT = 1024 * 1024


class Broken(io.BytesIO):
    """A stream that a server gives up on, as gunicorn does where a chunk is no chunk."""

    def read(self, *_: Any) -> bytes:
        raise OSError("bad chunk")


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

# What the server hands over, and how it is answered.
BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "whole": ({"CONTENT_LENGTH": str(len(HERO)), "wsgi.input": HERO}, 200),
    "chunked": (CHUNKED | {"wsgi.input": HERO}, 200),
    "of the largest size": ({"CONTENT_LENGTH": str(LIMIT), "wsgi.input": HERO + b" " * (LIMIT - len(HERO))}, 200),
    "too large": ({"CONTENT_LENGTH": str(LIMIT + 1), "wsgi.input": HERO}, 413),
    "far too large": ({"CONTENT_LENGTH": "9" * 30, "wsgi.input": HERO}, 413),
    "chunked and too large": (CHUNKED | {"wsgi.input": HERO + b" " * LIMIT}, 413),
    "cut short": ({"CONTENT_LENGTH": "300", "wsgi.input": HERO}, 400),
    "badly chunked": (CHUNKED | {"wsgi.input": Broken(HERO)}, 400),
    "gone": ({"CONTENT_LENGTH": "300", "wsgi.input": Broken()}, 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_whole_or_refused(client: FlaskClient, name: str) -> None:
    environ, status = BODIES[name]
    stream = environ["wsgi.input"]
    given = environ | {"wsgi.input": io.BytesIO(stream) if isinstance(stream, bytes) else stream}
    response = client.post("/heroes/", content_type="application/json", environ_overrides=given)

    assert response.status_code == status
    assert status == 200 or set(response.json) == {"detail"}
    assert len(client.get("/heroes/").json) == (status == 200)


@pytest.mark.parametrize("method, path", [("GET", "/heroes/"), ("DELETE", "/heroes/1"), ("GET", "/nowhere")])
def test_nor_is_one_ignored_that_no_view_reads(client: FlaskClient, method: str, path: str) -> None:
    cut = {"CONTENT_LENGTH": "300", "wsgi.input": io.BytesIO(b"x")}

    assert client.open(path, method=method, environ_overrides=cut).status_code == 400


@pytest.mark.parametrize("limit", [10, None])
def test_the_limit_is_a_setting(client: FlaskClient, limit: int | None) -> None:
    client.application.config["MAX_CONTENT_LENGTH"] = limit

    assert client.post("/heroes/", data=HERO, content_type="application/json").status_code == 413
