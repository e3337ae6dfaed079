"""An nginx of our own with the configuration that deploy/ has."""

import http.client
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

# All load comes from one address.
FAST = {"rate=100r/s": "rate=100000r/s"}


def required(program: str) -> str:
    """Where a program is; without it the test is skipped, but never in CI."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        assert "CI" not in os.environ, f"{program} is missing"
        pytest.skip(f"needs {program} (apt install {program})")
    return found


class Nginx:
    """A running nginx with deploy/nginx.conf, its ports and what `replaced` says replaced."""

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
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.05)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own: status, body, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()
