"""/docs in a real Chromium: it renders, it works, and it requests nothing from other hosts.

The host has a name of its own, because browsers make exceptions for localhost.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect, sync_playwright

from tests.browser import FLAGS, HOST, at
from tests.constants import sqlite_only
from tests.servers import Server, start_server
from tests.soak.proxy import Nginx

OPERATIONS = ["Create Hero", "Read Heroes", "Read Hero", "Update Hero", "Delete Hero"]
# Swagger UI says so of every link to an operation with "_" in its id, and the tutorial's ids are full of them.
NOTE = "Deprecated: escaping deep link whitespace with `_` is unsupported"
TOKEN = "a-token-that-only-this-test-knows"

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. If it is missing, the tests are skipped; in CI they fail."""
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
    """A gunicorn for all pages, also behind nginx; they do not depend on each other's heroes."""
    folder = tmp_path_factory.mktemp("browser")
    server = start_server(f"sqlite:///{folder / 'database.db'}", folder, PROXY_HOPS="1")
    yield server
    server.kill()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page. At the end it must have requested nothing from other hosts, and have no failed request and no error."""
    hosts: set[str | None] = set()
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()

    def received(response: Response) -> None:
        if response.status >= 400:
            complaints.append(f"{response.status} {response.url}")

    def said(line: ConsoleMessage) -> None:
        if line.type == "error" and NOTE not in line.text:
            complaints.append(line.text)

    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("response", received)
    page.on("console", said)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', event => console.error('CSP', event.violatedDirective))"
    )
    yield page
    page.wait_for_load_state("networkidle")
    context.close()
    assert hosts - {None} == {HOST}  # None: data: and blob:
    assert complaints == []


def send(page: Page, operation: str, body: str | None = None) -> str:
    """Try an operation that is open in Swagger UI, and return the text of the response."""
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
    paths = server.client(keep_alive=False).send("GET", "/openapi.json").json["paths"]
    summaries = [operation["summary"] for path in paths.values() for operation in path.values()]
    assert set(OPERATIONS) <= set(summaries)
    expect(page.locator(".opblock-summary-description")).to_have_text(summaries)
    expect(page.locator(".opblock-tag")).to_have_count(1)
    expect(page.locator(".errors-wrapper")).to_have_count(0)


def test_hero_created_in_swagger_ui_is_listed(page: Page, server: Server) -> None:
    """By the links that FastAPI's own /docs has."""
    page.goto(at(server, "/docs#/default/create_hero_heroes__post"))

    created = send(page, "create_hero_heroes__post", '{"name": "Made on the page", "secret_name": "Dive Wilson"}')
    page.get_by_text("Read Heroes").click()
    listed = send(page, "read_heroes_heroes__get")

    assert created.startswith("200")
    assert listed.startswith("200")
    assert '"name": "Made on the page"' in listed
    assert "Dive Wilson" not in listed


@sqlite_only
def test_authorize_button_sends_the_token_and_the_example_is_accepted(page: Page, serve: Callable[..., Server]) -> None:
    page.goto(at(serve(API_TOKENS=TOKEN), "/docs#/default/create_hero_heroes__post"))

    page.locator("button.authorize").first.click()
    page.locator(".modal-ux input").fill(TOKEN)
    page.locator(".modal-ux button.authorize").click()
    page.locator(".modal-ux button.btn-done").click()

    assert send(page, "create_hero_heroes__post").startswith("200")


BELOW = {
    "location / {": "location /api/ {",
    "proxy_pass http://heroes;": "proxy_pass http://heroes/;",
    'X-Forwarded-Prefix "";': "X-Forwarded-Prefix /api;",
    "location ~ ^/(metrics|health)": "location ~ ^/api/(metrics|health)",
}


def test_swagger_ui_works_below_a_prefix_behind_nginx(page: Page, server: Server, tmp_path: Path) -> None:
    proxy = Nginx(tmp_path / "nginx", [server.port] * 2, BELOW)
    try:
        page.goto(f"http://{HOST}:{proxy.port}/api/#/default/create_hero_heroes__post")
        assert urlsplit(page.url).path == "/api/docs"
        created = send(page, "create_hero_heroes__post", '{"name": "Made below", "secret_name": "s"}')
        assert created.startswith("200")
        assert '"name": "Made below"' in created
        assert proxy.request("GET", "/api/redoc").headers["Location"] == "/api/docs"
        assert [proxy.request("GET", path).status for path in ("/api/metrics", "/api/health/ready")] == [404, 404]
        page.wait_for_load_state("networkidle")
    finally:
        proxy.stop()
