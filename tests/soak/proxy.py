"""An nginx with the configuration in deploy/."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client import Client, Response
from tests.constants import ROOT
from tests.servers import free_port, wait_until

# All load comes from one address, which the limit would throttle.
FAST = {"rate=100r/s": "rate=100000r/s"}


def required(program: str) -> str:
    """Return the path of a program. If it is missing, skip the test, or fail in CI."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        assert "CI" not in os.environ, f"{program} is missing"
        pytest.skip(f"needs {program} (apt install {program})")
    return found


class Nginx:
    """A running nginx with deploy/nginx.conf, with its ports and the strings of `replaced` replaced."""

    def __init__(self, folder: Path, backends: list[int], replaced: dict[str, str]) -> None:
        self.port = free_port()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        ports = {"listen 80;": f"listen 127.0.0.1:{self.port};"}
        ports |= {f"127.0.0.1:{8001 + i}": f"127.0.0.1:{port}" for i, port in enumerate(backends)}
        for old, new in (ports | replaced).items():
            assert old in text
            text = text.replace(old, new)
        folder.mkdir()
        (folder / "heroes.conf").write_text(text)
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
            f"events {{ worker_connections 1024; }}"
            f"http {{ access_log off; {temporary} include {folder}/heroes.conf; }}"
        )
        command = [required("nginx"), "-e", f"{folder}/error.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
        self.process = subprocess.Popen(command)
        wait_until(lambda: self.answers() or self.process.poll() is not None, 20)
        assert self.process.poll() is None

    def answers(self) -> bool:
        """Return whether it responds to requests."""
        try:
            self.request("GET", "/health/live")
        except OSError:
            return False
        return True

    def request(self, method: str, path: str, body: object = None) -> Response:
        """Send one request on a new connection."""
        return Client(self.port, keep_alive=False).send(method, path, body)

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(30)
