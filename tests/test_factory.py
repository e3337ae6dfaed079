"""`create_app` gives a whole service, as many as wanted in one process, and says in a line what it can't use."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import flask
import pytest
from conftest import ROOT
from marshmallow import ValidationError, validate

import heroes
from heroes import create_app
from heroes.config import ConfigError
from heroes.fields import Int
from heroes.schemas import Model

MEMORY = {"SQLALCHEMY_DATABASE_URI": "sqlite://"}
HERO = {"name": "Deadpond", "secret_name": "Dive Wilson"}


def test_two_services_in_memory_share_nothing() -> None:
    one, other = (create_app(MEMORY).test_client() for _ in range(2))

    assert one.post("/heroes/", json=HERO).status_code == 200
    assert len(one.get("/heroes/").json) == 1
    assert other.get("/heroes/").json == []


def test_the_database_is_in_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    create_app().test_client().post("/heroes/", json=HERO)

    assert (tmp_path / "database.db").exists()


@pytest.mark.parametrize(
    "url",
    ["", "mysql://localhost/heroes", "nonsense", "sqlite:///no/such/folder/database.db", "postgresql://h:no-port/d"],
)
def test_a_wrong_database_url_is_told_in_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\ADATABASE_URL: [^\n]+\Z"):
        create_app({"SQLALCHEMY_DATABASE_URI": url})


@pytest.mark.parametrize(
    "command", [["gunicorn", "wsgi:app"], ["flask", "--app", "wsgi", "routes"]], ids=["gunicorn", "flask"]
)
def test_a_wrong_setting_ends_the_start_without_a_traceback(command: list[str]) -> None:
    environment = os.environ | {"DATABASE_URL": "nonsense", "BIND": "127.0.0.1:0"}
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )

    assert ended.returncode == 3
    assert "DATABASE_URL: Must be a sqlite:// or a postgresql:// URL." in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_schema_with_more_than_scalars_is_refused() -> None:
    from marshmallow import fields

    class Team(Model):
        founded = fields.Date()

    with pytest.raises(TypeError, match="Team has more than Scalars"):
        Team()


def test_a_scalar_asks_its_validators() -> None:
    grade = Int(validate=validate.Range(1, 6))

    assert grade.deserialize("6") == 6
    with pytest.raises(ValidationError):
        grade.deserialize(7)


def test_the_files_of_a_form_are_closed() -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    with app.test_request_context(method="POST", data={"file": (BytesIO(b"Deadpond"), "heroes.txt")}):
        stream = flask.request.files["file"].stream
        assert stream.read() == b"Deadpond"

    assert stream.closed


def test_the_version_is_told_in_one_place() -> None:
    assert heroes.__version__ == create_app(MEMORY).test_client().get("/openapi.json").json["info"]["version"]
