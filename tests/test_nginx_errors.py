"""What nginx refuses itself, with the configuration that deploy/ has."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import exchange
from tests.servers import free_port
from tests.soak.proxy import FAST, Nginx, required

pytestmark = pytest.mark.xdist_group("proxy")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """One nginx without a service behind it: it refuses these requests itself."""
    required("nginx")
    proxy = Nginx(tmp_path_factory.mktemp("errors") / "nginx", [free_port(), free_port()], FAST)
    yield proxy
    proxy.stop()


@pytest.mark.parametrize(
    "head, status",
    [
        (b"GET /heroes/?a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /../../x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"get /heroes/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /heroes/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /heroes/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 400),
        (b"TRACE /heroes/ HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /heroes/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /heroes/ HTTP/9.1\r\nHost: h\r\n\r\n", 505),
        (b"GET /.nginx/400 HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    ],
)
def test_errors_of_nginx_have_the_envelope(nginx: Nginx, head: bytes, status: int) -> None:
    response = exchange(nginx.port, head)

    assert response.status == status
    assert response.headers["Content-Type"] == "application/json"
    assert list(json.loads(response.body)) == ["detail"]


def test_plain_http_on_the_https_port_has_the_envelope(tmp_path: Path) -> None:
    port, pem, key = free_port(), tmp_path / "heroes.pem", tmp_path / "heroes.key"
    command = [required("openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=h"]
    subprocess.run([*command, "-out", pem, "-keyout", key], check=True, capture_output=True)
    https = {
        "# listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl;",
        "# ssl_certificate     /etc/ssl/heroes.pem;": f"ssl_certificate {pem};",
        "# ssl_certificate_key /etc/ssl/heroes.key;": f"ssl_certificate_key {key};",
    }
    nginx = Nginx(tmp_path / "nginx", [free_port(), free_port()], https)
    try:
        response = exchange(port, b"GET /heroes/ HTTP/1.1\r\nHost: h\r\n\r\n")
    finally:
        nginx.stop()

    assert (response.status, json.loads(response.body)) == (400, {"detail": "Bad Request"})
