"""/docs and /redoc in a real Chromium: they render, they work, and nothing leaves the host.

The host has a name of its own, for which pages have no exceptions as they have for localhost.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import Server, start_server

HOST = "heroes.test"
FLAGS = [
    "--no-sandbox",  # needed by root, as whom containers and CI often run
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
]
OPERATIONS = ["Create Hero", "Read Heroes", "Read Hero", "Update Hero", "Delete Hero"]
# Swagger UI says so of every link to an operation with "_" in its id, and the tutorial's ids are full of them.
NOTE = "Deprecated: escaping deep link whitespace with `_` is unsupported"
TOKEN = "a-token-that-only-this-test-knows"

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. Where it is missing the tests are skipped; in CI they fail."""
    path = shutil.which("chromium")
    if path is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("needs Chromium: apt-get install chromium")
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=path, args=FLAGS)) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gunicorn for the pages, none of which minds the heroes that another one made."""
    folder = tmp_path_factory.mktemp("browser")
    server = start_server(f"sqlite:///{folder / 'database.db'}", folder)
    yield server
    server.kill()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page; at the end it must have asked nobody but our host, got all it asked for, and have no complaint."""
    hosts: set[str | None] = set()
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on(
        "response", lambda response: response.status < 400 or complaints.append(f"{response.status} {response.url}")
    )
    page.on("console", lambda line: line.type == "error" and NOTE not in line.text and complaints.append(line.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', event => console.error('CSP', event.violatedDirective))"
    )
    yield page
    page.wait_for_load_state("networkidle")
    context.close()
    assert hosts - {None} == {HOST}  # None: data: and blob:
    assert complaints == []


def at(server: Server, path: str) -> str:
    """The URL of a path, by the server's name."""
    return f"http://{HOST}:{server.port}{path}"


def send(page: Page, operation: str, body: str | None = None) -> str:
    """Tries an operation of Swagger UI that is open: what the response's row shows."""
    block = page.locator(f"#operations-default-{operation}")
    block.get_by_role("button", name="Try it out").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(body)
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table tbody tr.response").inner_text()


def test_docs_render(page: Page, server: Server) -> None:
    page.goto(at(server, "/"))

    assert urlsplit(page.url).path == "/docs"
    expect(page).to_have_title("heroes - Swagger UI")
    expect(page.locator(".opblock-summary-description")).to_have_text(OPERATIONS)
    expect(page.locator(".opblock-tag")).to_have_count(1)
    expect(page.locator(".errors-wrapper")).to_have_count(0)


def test_a_hero_made_on_the_page_is_in_the_list(page: Page, server: Server) -> None:
    """By the links that FastAPI's own /docs has."""
    page.goto(at(server, "/docs#/default/create_hero_heroes__post"))

    created = send(page, "create_hero_heroes__post", '{"name": "Made on the page", "secret_name": "Dive Wilson"}')
    page.get_by_text("Read Heroes").click()
    listed = send(page, "read_heroes_heroes__get")

    assert created.startswith("200")
    assert listed.startswith("200")
    assert '"name": "Made on the page"' in listed
    assert "Dive Wilson" not in listed


def test_the_example_can_be_sent_as_it_stands(page: Page, server: Server) -> None:
    page.goto(at(server, "/docs#/default/create_hero_heroes__post"))

    assert send(page, "create_hero_heroes__post").startswith("200")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_authorize_button(page: Page, serve: Callable[..., Server]) -> None:
    page.goto(at(serve(API_TOKENS=TOKEN), "/docs#/default/create_hero_heroes__post"))

    page.locator("button.authorize").first.click()
    page.locator(".modal-ux input").fill(TOKEN)
    page.locator(".modal-ux button.authorize").click()
    page.locator(".modal-ux button.btn-done").click()

    assert send(page, "create_hero_heroes__post", '{"name": "A", "secret_name": "a"}').startswith("200")


def test_redoc_renders(page: Page, server: Server) -> None:
    page.goto(at(server, "/redoc"))

    expect(page).to_have_title("heroes - ReDoc")
    expect(page.locator("h2")).to_contain_text(OPERATIONS)


def test_redoc_searches(page: Page, server: Server) -> None:
    page.goto(at(server, "/redoc"))

    page.get_by_text("Search").first.click()
    page.keyboard.type("delete")

    expect(page.get_by_role("link", name="DELETE /heroes/{hero_id} Delete Hero")).to_be_visible()
