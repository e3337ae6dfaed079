"""`create_app` creates independent apps, and rejects an invalid setting with one line."""

from io import BytesIO
from pathlib import Path

import flask
import pytest
from marshmallow import ValidationError, validate
from sqlalchemy import make_url
from werkzeug.test import create_environ, run_wsgi_app

import heroes
from heroes import create_app
from heroes.config import ConfigError
from heroes.web.fields import Integer
from tests.commands import run_flask
from tests.constants import HERO

MEMORY = {"SQLALCHEMY_DATABASE_URI": "sqlite://"}


def test_apps_in_memory_share_nothing() -> None:
    one, other = (create_app(MEMORY).test_client() for _ in range(2))

    assert one.post("/heroes/", json=HERO).status_code == 200
    assert len(one.get("/heroes/").get_json()) == 1
    assert other.get("/heroes/").json == []


def test_default_database_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    create_app().test_client().post("/heroes/", json=HERO)

    assert (tmp_path / "database.db").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"API_TOKENS": "a,b"}, ["a", "b"]),
        ({"API_TOKENS": ["a", "b"]}, ["a", "b"]),
        ({"API_TOKENS": None}, None),
        ({"API_TOKENS_PROTECT": "All"}, "all"),
        ({"METRICS": "off"}, False),
        ({"MAX_CONTENT_LENGTH": "1000"}, 1000),
        ({"MAX_CONTENT_LENGTH": None}, None),
        ({"DATABASE_TIMEOUT": "7"}, 7),
    ],
)
def test_given_setting_is_parsed_like_the_environment(given: dict[str, object], expected: object) -> None:
    app = create_app(MEMORY | given)

    [name] = given
    assert app.config[name] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"API_TOKENS": ""}, "API_TOKENS: Must not be empty."),
        ({"API_TOKENS": 5}, "API_TOKENS: Not a valid list."),
        ({"ALLOWED_HOSTS": ["a b"]}, "TRUSTED_HOSTS: Has an entry that is empty or not well-formed."),
        ({"API_TOKENS_PROTECT": None}, "API_TOKENS_PROTECT: Field may not be null."),
        ({"DATABASE_TIMEOUT": None}, "DATABASE_TIMEOUT: Field may not be null."),
        ({"PROXY_HOPS": -1}, "PROXY_HOPS: Must be greater than or equal to 0."),
        ({"SQLALCHEMY_DATABASE_URI": "mysql://"}, "DATABASE_URL: Must be a sqlite:// or a postgresql:// URL."),
    ],
)
def test_given_setting_that_is_not_valid_is_a_config_error(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        create_app(MEMORY | given)

    assert raised.value.message == message


def test_given_setting_overrides_one_of_the_environment_that_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_TIMEOUT", "0")

    assert create_app(MEMORY | {"DATABASE_TIMEOUT": 3}).config["DATABASE_TIMEOUT"] == 3


def test_the_database_may_be_given_as_a_url_object() -> None:
    url = make_url("postgresql://u:sentinel@127.0.0.1:1/heroes")
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})

    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"]["password"] == "sentinel"


def test_a_server_may_omit_an_empty_path() -> None:
    environ = create_environ("/", base_url="http://h/heroes")
    del environ["PATH_INFO"]

    assert run_wsgi_app(create_app(MEMORY | {"SCRIPT_NAME": "/heroes"}), environ)[1].startswith("3")


def test_invalid_setting_stops_a_command_without_a_traceback() -> None:
    """See test_settings.py for gunicorn."""
    ended = run_flask("nonsense", "routes", text=True)

    assert ended.returncode in (1, 3)
    assert "DATABASE_URL: Must be a sqlite:// or a postgresql:// URL." in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_scalar_field_runs_its_validators() -> None:
    grade = Integer(validate=validate.Range(1, 6))

    assert grade.deserialize("6") == 6
    with pytest.raises(ValidationError):
        grade.deserialize(7)


def test_the_files_of_a_form_are_closed() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    with app.test_request_context(method="POST", data={"file": (BytesIO(b"Deadpond"), "heroes.txt")}):
        stream = flask.request.files["file"].stream
        assert stream.read() == b"Deadpond"

    assert stream.closed


def test_version_is_defined_in_one_place() -> None:
    assert heroes.__version__ == create_app(MEMORY).test_client().get("/openapi.json").get_json()["info"]["version"]
