"""The code in docs/adding-a-resource.md works unchanged, on both databases."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heroes import create_app
from heroes.extensions import db
from tests.client import Client, Response
from tests.commands import run_flask
from tests.constants import HERO, ROOT, public
from tests.databases import migrated, new_database
from tests.servers import Server, serving

PAGE = (ROOT / "docs/adding-a-resource.md").read_text()
MAX_LINES = 100
TEAM = {"name": "Preventers", "headquarters": "Sharp Tower"}

pytestmark = pytest.mark.xdist_group("adding-a-resource")


def diffs() -> list[tuple[str, list[list[str]]]]:
    """Return the page's diffs: a path, and hunks of lines."""
    blocks = re.findall(r"^```diff\n--- a/(\S+)\n\+\+\+ b/\S+\n@@\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [(path, [hunk.splitlines() for hunk in body.split("@@\n")]) for path, body in blocks]


def files() -> list[tuple[str, str]]:
    """Return the page's new files: a path and its content."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [(re.findall(r"^# (\S+\.py)\n", block, re.MULTILINE)[0], block) for block in blocks]


def apply(hunk: list[str], text: str) -> str:
    """Apply a hunk without line numbers to a text; it must fit exactly once or, to be the first of several, at all."""
    before = "".join(f"{line[1:]}\n" for line in hunk if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in hunk if not line.startswith("-"))
    assert before in text, before
    return text.replace(before, after, 1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's code and the migration that Alembic writes for it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "heroes", folder / "heroes", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder)
    for path, hunks in diffs():
        text = (folder / path).read_text()
        for hunk in hunks:
            text = apply(hunk, text)
        (folder / path).write_text(text)
    for path, content in files():
        (folder / path).write_text(content)
    command = ["db", "revision", "--autogenerate", "-m", "Teams"]
    done = run_flask(f"sqlite:///{folder}/autogenerate.db", *command, cwd=folder, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The changed service, on a database that already has a hero and has given out the id of another."""
    folder = tmp_path_factory.mktemp("service")
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder / 'database.db'}" if sqlite else new_database(request.getfixturevalue("postgres"))
    migrated(url)
    app = create_app({"SQLALCHEMY_DATABASE_URI": url})
    before = app.test_client()
    for name in ("first", "last"):
        before.post("/heroes/", json=HERO | {"name": name})
    before.delete("/heroes/2")
    with app.app_context():
        db.engine.dispose()
    if not sqlite:  # which is migrated when the service starts
        done = run_flask(url, "db", "upgrade", cwd=project, text=True)
        assert done.returncode == 0, done.stderr
    with serving(url, folder, cwd=project) as server:
        yield server


@pytest.fixture
def teams(service: Server) -> Iterator[Client]:
    """A client of the changed service, whose tests do not depend on each other's teams."""
    with service.client() as client:
        yield client


def send(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Response:
    """Send a request with headers given by keyword."""
    return client.send(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})


def test_resource_takes_at_most_100_lines() -> None:
    added = [line for _, hunks in diffs() for hunk in hunks for line in hunk if line.startswith("+")]
    lines = [line for _, content in files() for line in content.splitlines()] + added

    assert len([line for line in lines if line.strip("+ ")]) <= MAX_LINES


def test_teams_have_the_features_of_heroes(teams: Client) -> None:
    created = send(teams, "POST", "/teams/", TEAM, Idempotency_Key="k")
    again = send(teams, "POST", "/teams/", TEAM, Idempotency_Key="k")
    other = send(teams, "POST", "/teams/", TEAM | {"name": "Z-Force"})

    team_id = created.json["id"]
    assert (created.status, created.json) == (200, TEAM | {"id": team_id})
    assert (again.json, again.headers["Idempotent-Replayed"]) == (created.json, "true")
    assert send(teams, "POST", "/heroes/", HERO, Idempotency_Key="k").status == 422
    page = send(teams, "GET", "/teams?sort=-name&limit=1", Prefer="count=exact")
    assert [team["name"] for team in page.json] == ["Z-Force"]
    assert (page.headers["X-Total-Count"], page.headers["Link"]) == ("2", '<?limit=1&sort=-name&offset=1>; rel="next"')
    assert len(send(teams, "GET", "/teams/?name=Preventers").json) == 1
    etag = created.headers["ETag"]
    assert send(teams, "GET", f"/teams/{team_id}", If_None_Match=etag).status == 304
    changed = send(teams, "PATCH", f"/teams/{team_id}", {"name": "Avengers"}, If_Match=etag)
    assert changed.json == {"name": "Avengers", "headquarters": "Sharp Tower", "id": team_id}
    refused = send(teams, "DELETE", f"/teams/{team_id}", If_Match=etag)
    assert (refused.status, refused.json) == (412, {"detail": "Team has changed"})
    assert send(teams, "DELETE", f"/teams/{other.json['id']}").json == {"ok": True}
    assert send(teams, "GET", f"/teams/{other.json['id']}").json == {"detail": "Team not found"}
    assert send(teams, "POST", "/teams/", {}).json["detail"][0]["loc"] == ["body", "name"]
    assert "/teams/{team_id}" in send(teams, "GET", "/openapi.json").json["paths"]


def test_heroes_refer_to_teams(teams: Client) -> None:
    team_id = send(teams, "POST", "/teams/", TEAM).json["id"]
    hero = send(teams, "POST", "/heroes/", HERO | {"team_id": team_id})

    assert hero.json == public(id=3) | {"team_id": team_id}
    assert [each["id"] for each in send(teams, "GET", f"/heroes/?team_id={team_id}").json] == [3]
    assert send(teams, "PATCH", "/heroes/3", {"age": 30}).json["team_id"] == team_id
    unknown = send(teams, "POST", "/heroes/", HERO | {"team_id": 99})
    assert (unknown.status, unknown.json) == (409, {"detail": "Refers to something that does not exist"})
    used = send(teams, "DELETE", f"/teams/{team_id}")
    assert (used.status, used.json) == (409, {"detail": "Still in use"})
    assert send(teams, "PATCH", "/heroes/3", {"team_id": None}).json["team_id"] is None
    assert send(teams, "DELETE", f"/teams/{team_id}").json == {"ok": True}
    assert [each["name"] for each in send(teams, "GET", "/heroes/").json] == ["first", "Deadpond"]
