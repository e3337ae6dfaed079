"""Chromium's command-line flags, and the host name by which it reaches a test server."""

from tests.servers import Server

HOST = "heroes.test"
FLAGS = [
    "--no-sandbox",  # required as root, which containers and CI often use
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
]


def at(server: Server, path: str) -> str:
    """Return the URL of a path, with HOST as the host name."""
    return f"http://{HOST}:{server.port}{path}"
