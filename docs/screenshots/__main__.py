"""Take the README's picture of /docs again: `make screenshots`."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser import FLAGS, at
from tests.servers import start_server

PICTURE = Path(__file__).parent / "docs.png"


def main() -> None:
    """Write docs.png beside this file: /docs as it opens."""
    chromium = shutil.which("chromium") or sys.exit("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(f"sqlite:///{folder}/database.db", Path(folder))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(viewport={"width": 1200, "height": 620}, color_scheme="light")
                page.goto(at(server, "/docs"))
                page.locator(".opblock").last.wait_for()
                page.screenshot(path=PICTURE)
                browser.close()
        finally:
            server.stop()
    print(PICTURE)


if __name__ == "__main__":
    main()
