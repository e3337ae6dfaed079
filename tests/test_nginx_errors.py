"""What nginx refuses itself, with the configuration that deploy/ has."""

import json
from collections.abc import Iterator

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
