"""/health/live says that the process responds, /health/ready that it can serve requests."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from heroes import create_app
from heroes.extensions import db
from tests.constants import Query, postgres_only

NOWHERE = "postgresql://user:sentinel@127.0.0.1:1/heroes"


def ready(client: FlaskClient) -> Any:
    response = client.get("/health/ready")
    return response.status_code, response.json


def test_ready(client: FlaskClient) -> None:
    assert ready(client) == (200, {"status": "ok"})


def test_unreachable_database_is_not_ready_but_live(caplog: pytest.LogCaptureFixture) -> None:
    client = create_app({"SQLALCHEMY_DATABASE_URI": NOWHERE}).test_client()

    assert client.get("/health/live").json == {"status": "ok"}
    assert ready(client) == (503, {"detail": "Database unavailable"})
    assert client.get("/health/ready").headers["Retry-After"] == "1"
    assert "not ready: connection" in caplog.text
    assert "sentinel" not in caplog.text


@postgres_only
def test_an_empty_database_is_not_ready(empty_database_url: str) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": empty_database_url})

    assert ready(app.test_client()) == (503, {"detail": "Database schema is behind"})
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize(
    ("revision", "answer"),
    [
        ("0001", (503, {"detail": "Database schema is behind"})),
        # A later release's: it stays usable for this one while servers are exchanged one by one, or taken back.
        ("9999", (200, {"status": "ok"})),
    ],
)
def test_readiness_depends_on_the_revision(client: FlaskClient, query: Query, revision: str, answer: Any) -> None:
    [(head,)] = query("SELECT version_num FROM alembic_version")
    query(f"UPDATE alembic_version SET version_num = '{revision}'")
    try:
        assert ready(client) == answer
    finally:
        query(f"UPDATE alembic_version SET version_num = '{head}'")


def test_revision_of_another_program_is_not_ready(client: FlaskClient, query: Query) -> None:
    [(head,)] = query("SELECT version_num FROM alembic_version")
    query("UPDATE alembic_version SET version_num = '9999'")
    query("ALTER TABLE hero RENAME COLUMN version TO other")
    try:
        assert ready(client) == (503, {"detail": "Database schema is behind"})
    finally:
        query(f"UPDATE alembic_version SET version_num = '{head}'")
        query("ALTER TABLE hero RENAME COLUMN other TO version")
