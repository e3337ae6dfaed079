"""Access: open by default, access tokens, CORS, trusted hosts, proxies, and the security headers."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from openapi_spec_validator import validate
from werkzeug.test import create_environ, run_wsgi_app

from tests.client import exchange
from tests.constants import HERO, on_gunicorn, public, sqlite_only
from tests.servers import Server, measured

TOKENS = "first-token,second/token+=="
RIGHT = {"Authorization": "Bearer first-token"}
READS = [("GET", "/heroes/"), ("HEAD", "/heroes/"), ("GET", "/heroes/1")]
WRITES = [("POST", "/heroes/"), ("PATCH", "/heroes/1"), ("DELETE", "/heroes/1")]
OPEN = [
    "/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/docs/assets/swagger-ui.css",
    "/static/docs.js",
    "/health/live",
    "/health/ready",
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, new_app: Callable[..., Flask]) -> Any:
    """Start the service with one hero: started(API_TOKENS="…"). /echo returns the client and the host."""

    def start(**environment: str) -> Flask:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        app = new_app()
        app.add_url_rule("/echo", view_func=lambda: [request.remote_addr, request.scheme, request.host])
        app.test_client().post("/heroes/", json=HERO, headers=RIGHT)
        return app

    return start


def test_open_by_default(started: Callable[..., Flask]) -> None:
    client = started().test_client()

    assert [client.open(path, method=method).status_code for method, path in [*READS, *WRITES]] == [200] * 3 + [
        422,
        422,
        200,
    ]


@pytest.mark.parametrize("protect, asked", [("writes", WRITES), ("all", READS + WRITES)])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer first-token,second/token+==",
        "Bearer first-toke",
        "Bearer FIRST-TOKEN",
        "Bearer caf\u00e9",
        "Basic Zmlyc3QtdG9rZW46",
        "first-token",
        'Bearer token="first-token"',
    ],
)
def test_missing_or_unknown_token_is_401(
    started: Callable[..., Flask], protect: str, asked: Any, authorization: str | None
) -> None:
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT=protect).test_client()

    for method, path in asked:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = client.open(path, method=method, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="heroes"'
        assert method == "HEAD" or response.json == {"detail": "Not authenticated"}
    assert client.get("/heroes/1", headers=RIGHT).status_code == 200


@pytest.mark.parametrize("authorization", ["Bearer first-token", "bearer first-token", "Bearer second/token+=="])
def test_known_token_allows_every_operation(started: Callable[..., Flask], authorization: str | None) -> None:
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()
    headers = {"Authorization": authorization}

    assert client.post("/heroes/", json=HERO, headers=headers).json == public(id=2)
    assert client.get("/heroes/2", headers=headers).get_json()["name"] == "Deadpond"
    assert client.patch("/heroes/2", json={"age": 1}, headers=headers).get_json()["age"] == 1
    assert client.delete("/heroes/2", headers=headers).json == {"ok": True}


def test_reads_need_no_token_if_writes_are_protected(started: Callable[..., Flask]) -> None:
    client = started(API_TOKENS=TOKENS).test_client()

    assert [client.open(path, method=method).status_code for method, path in READS] == [200, 200, 200]


@pytest.mark.parametrize("path", OPEN)
def test_documentation_and_health_are_always_open(started: Callable[..., Flask], path: str) -> None:
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()

    with client.get(path, follow_redirects=True) as response:
        assert response.status_code == 200


@pytest.mark.parametrize("protect, asked", [("writes", {"post", "patch", "delete"}), ("all", None)])
def test_document_says_which_operations_need_a_token(started: Callable[..., Flask], protect: str, asked: Any) -> None:
    document = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT=protect).test_client().get("/openapi.json").get_json()

    validate(document)
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            expected = asked is None or method in asked
            assert (operation.get("security") == [{"bearer": []}]) is expected
            assert ("401" in operation["responses"]) is expected


PREFLIGHT = {
    "Origin": "https://a.example",
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type, authorization, if-match",
}


def test_cors_is_off_by_default(started: Callable[..., Flask]) -> None:
    client = started().test_client()

    for response in (client.options("/heroes/1", headers=PREFLIGHT), client.get("/heroes/1", headers=PREFLIGHT)):
        assert response.status_code == 200
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "origin", ["capacitor://localhost", "tauri://localhost", "chrome-extension://abcdefghijklmnop"]
)
def test_origin_of_an_app_is_allowed(started: Callable[..., Flask], origin: str) -> None:
    client = started(CORS_ORIGINS=f"https://a.example,{origin}").test_client()

    assert client.get("/heroes/", headers={"Origin": origin}).headers["Access-Control-Allow-Origin"] == origin
    assert "Access-Control-Allow-Origin" not in client.get("/heroes/", headers={"Origin": f"{origin}.evil"}).headers


@pytest.mark.parametrize("origins", ["https://a.example", "http://b.example:8080,https://a.example", "*"])
def test_listed_origin_is_allowed(started: Callable[..., Flask], origins: str) -> None:
    client = started(CORS_ORIGINS=origins, API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()
    allowed = "*" if origins == "*" else "https://a.example"

    preflight = client.options("/heroes/1", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == allowed
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type, if-match"

    for headers, status in ((RIGHT, 200), ({}, 401)):
        response = client.get("/heroes/1", headers=headers | {"Origin": "https://a.example"})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == allowed
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", ["/nowhere", "/heroes/1/powers", "/heroes//", "/heroes", "/docs", "/openapi.json"])
def test_a_preflight_is_answered_for_any_path(started: Callable[..., Flask], path: str) -> None:
    """Otherwise a script can't tell a 404 from a network error."""
    client = started(CORS_ORIGINS="https://a.example", API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()

    for method in ("GET", "PATCH", "FOO"):
        response = client.options(path, headers=PREFLIGHT | {"Access-Control-Request-Method": method})
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_unknown_path_without_preflight_is_404(started: Callable[..., Flask]) -> None:
    client = started(CORS_ORIGINS="https://a.example").test_client()

    assert client.options("/nowhere", headers={"Origin": "https://a.example"}).status_code == 404
    response = client.get("/nowhere", headers={"Origin": "https://a.example"})
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (404, "https://a.example")


@pytest.mark.parametrize("origins", ["https://a.example", "https://a.example,https://c.example"])
@pytest.mark.parametrize("path", ["/heroes/1", "/heroes/x", "/nowhere", "//", "/docs", "/docs/assets/swagger-ui.css"])
def test_response_varies_by_origin_if_origins_are_listed(
    started: Callable[..., Flask], origins: str, path: str
) -> None:
    client = started(CORS_ORIGINS=origins).test_client()

    for origin in (None, "https://a.example", "https://b.example", "null"):
        headers = {} if origin is None else PREFLIGHT | {"Origin": origin}
        for method in ("GET", "OPTIONS"):
            with client.open(path, method=method, headers=headers) as response:
                assert response.headers.getlist("Vary") == ["Origin"], (origin, method)


@pytest.mark.parametrize("environment", [{}, {"CORS_ORIGINS": "*"}])
def test_response_does_not_vary_if_all_origins_are_treated_alike(
    started: Callable[..., Flask], environment: dict[str, str]
) -> None:
    response = started(**environment).test_client().get("/heroes/1", headers=PREFLIGHT)

    assert "Vary" not in response.headers


@pytest.mark.parametrize("asked, answered", [("x" * 1000, "x" * 1000), ("x" * 1001, None), ("a," * 2000, None)])
def test_preflight_repeats_the_requested_headers_up_to_a_limit(
    started: Callable[..., Flask], asked: str, answered: str | None
) -> None:
    client = started(CORS_ORIGINS="https://a.example").test_client()

    response = client.options("/heroes/1", headers=PREFLIGHT | {"Access-Control-Request-Headers": asked})
    assert response.headers.get("Access-Control-Allow-Headers") == answered


@pytest.mark.parametrize("origin", ["https://b.example", "http://a.example", "https://a.example.evil", "null"])
def test_unlisted_origin_is_not_allowed(started: Callable[..., Flask], origin: str) -> None:
    client = started(CORS_ORIGINS="https://a.example").test_client()

    response = client.options("/heroes/1", headers=PREFLIGHT | {"Origin": origin})
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    "host, status",
    [
        ("api.example", 200),
        ("api.example:8000", 200),
        ("API.example", 200),
        ("a.b.example", 200),
        ("api.example.", 200),
        ("api.example.:8000", 200),
        (".", 400),
        ("localhost", 400),
        ("api.example.evil", 400),
        ("evil-api.example", 400),
        ("", 400),
        ("api.example@evil", 400),
    ],
)
def test_trusted_hosts(started: Callable[..., Flask], host: str, status: int) -> None:
    client = started(TRUSTED_HOSTS="Api.example,.B.example").test_client()

    response = client.get("/health/live", headers={"Host": host})
    assert response.status_code == status
    if status == 400:
        assert response.json == {"detail": "Bad Request"}


@pytest.mark.parametrize(
    "host, status",
    [("[::1]", 200), ("[::1]:8000", 200), ("[2001:DB8::2]", 200), ("[::2]", 400), ("::1", 400), ("1", 400)],
)
def test_trusted_hosts_with_ipv6(started: Callable[..., Flask], host: str, status: int) -> None:
    app = started(TRUSTED_HOSTS="[::1],[2001:db8::2]")

    # Not every version of Werkzeug's test client takes such a Host.
    _, answered, _ = run_wsgi_app(app, create_environ("/health/live", headers={"Host": host}))

    assert int(answered.split()[0]) == status


def test_any_host_is_accepted_by_default(started: Callable[..., Flask]) -> None:
    assert started().test_client().get("/health/live", headers={"Host": "whatever"}).status_code == 200


@pytest.mark.parametrize(
    "hops, believed",
    [
        (0, ["127.0.0.1", "http", "localhost"]),
        (1, ["10.0.0.3", "http", "three.example"]),
        (2, ["10.0.0.2", "https", "two.example"]),
        (4, ["127.0.0.1", "http", "localhost"]),
    ],
)
def test_forwarded_headers_are_read_at_exactly_proxy_hops(
    started: Callable[..., Flask], hops: int, believed: list[str]
) -> None:
    client = started(PROXY_HOPS=str(hops)).test_client()

    response = client.get(
        "/echo",
        headers={
            "X-Forwarded-For": "10.0.0.1, 10.0.0.2, 10.0.0.3",
            "X-Forwarded-Proto": "http, https, http",
            "X-Forwarded-Host": "one.example, two.example, three.example",
        },
    )
    assert response.json == believed


@pytest.mark.parametrize(
    "path, status",
    [("/heroes/1", 200), ("/heroes/2", 404), ("/heroes/x", 422), ("/nowhere", 404), ("/health/live", 200), ("/", 302)],
)
def test_every_response_has_the_security_headers(started: Callable[..., Flask], path: str, status: int) -> None:
    response = started().test_client().get(path)

    assert response.status_code == status
    assert response.headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert response.headers.getlist("Cache-Control") == ["no-cache"]
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    [policy] = response.headers.getlist("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy


def test_headers_of_a_view_replace_the_default_ones(new_app: Callable[..., Flask]) -> None:
    own = {"content-security-policy": "default-src 'self'", "Referrer-Policy": "strict-origin", "X-Request-ID": "a"}
    own["Cache-Control"] = "max-age=60"
    app = new_app()
    app.add_url_rule("/own", view_func=lambda: ("", own))

    headers = app.test_client().get("/own").headers
    assert {name: headers.getlist(name) for name in own} == {name: [value] for name, value in own.items()}
    assert headers.getlist("X-Content-Type-Options") == ["nosniff"]


@pytest.mark.parametrize("path", ["/docs"])
def test_docs_page_runs_only_its_own_scripts(started: Callable[..., Flask], path: str) -> None:
    response = started().test_client().get(path)

    [policy] = response.headers.getlist("Content-Security-Policy")
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in response.text


@on_gunicorn
def test_gunicorn_ignores_forwarded_headers(gunicorn: Server) -> None:
    claims = {
        "SCRIPT_NAME": "/heroes",
        "PATH_INFO": "/docs",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "6.6.6.6",
    }
    assert gunicorn.client(keep_alive=False).send("GET", "/heroes/", headers=claims).body == b"[]"

    assert '"route":"/heroes/"' in gunicorn.log.read_text().splitlines()[-1]
    assert "6.6.6.6" not in gunicorn.log.read_text()


@sqlite_only
def test_gunicorn_serves_nothing_outside_script_name(serve: Callable[..., Server]) -> None:
    # An environment variable of the process is not a header of its requests.
    server = serve(SCRIPT_NAME="/api", HTTP_X_REQUEST_ID="of-the-environment", **measured())
    client = server.client(keep_alive=False)

    listed = client.send("GET", "/api/heroes/")
    assert (listed.body, listed.headers["X-Request-ID"] == "of-the-environment") == (b"[]", False)
    assert client.send("GET", "/api").headers["Location"] == "/api/docs"
    for path in ("/", "/?#", "/heroes/", "/apiheroes/", "/apiheroes?#", "/API/heroes/", "/sentinel", "/%61pi/heroes/"):
        response = client.send("GET", path)
        assert (response.status, response.body) == (404, b'{"detail":"Not Found"}'), path
    log = server.log.read_text()
    assert "sentinel" not in log
    assert re.findall('"route":"([^"]*)"', log)[-8:] == ["unmatched"] * 8
    assert client.send("POST", "/api/heroes/", b" " * 2**20 + b" ").headers["Connection"] == "close"
    assert server.stop() == 0


# The version, the header lines, TRUSTED_HOSTS, the status.
HOSTS = [
    ("1.1", "", None, 400),
    ("1.2", "", None, 400),
    ("1.1", "Host:\r\n", None, 200),
    ("1.1", "Host: any.example\r\n", None, 200),
    ("1.1", "Host: a\r\nHost: a\r\n", None, 400),
    ("1.1", "Host: a, b\r\n", None, 400),
    ("1.0", "", None, 200),
    ("1.0", "Host: any.example\r\n", None, 200),
    ("1.0", "", "127.0.0.1", 400),
    ("1.1", "", "127.0.0.1", 400),
    ("1.1", "Host:\r\n", "127.0.0.1", 400),
    ("1.1", "Host: 127.0.0.1:1\r\n", "127.0.0.1", 200),
]


def check_hosts(server: Server, trusted: str | None) -> None:
    """Send the requests of HOSTS to a server with this value of TRUSTED_HOSTS."""
    for version, lines, hosts, status in HOSTS:
        if hosts == trusted:
            for path in ("/heroes/", "/health/live", "/nowhere"):
                expected = 404 if (status, path) == (200, "/nowhere") else status
                response = exchange(server.port, f"GET {path} HTTP/{version}\r\n{lines}\r\n".encode())
                assert (response.status, path, version, lines) == (expected, path, version, lines)


@on_gunicorn
def test_http_1_1_request_needs_one_host(gunicorn: Server) -> None:
    check_hosts(gunicorn, None)


@sqlite_only
def test_trusted_host_is_needed_in_any_version_of_http(serve: Callable[..., Server]) -> None:
    check_hosts(serve(TRUSTED_HOSTS="127.0.0.1"), "127.0.0.1")


@pytest.mark.parametrize(
    "origin, allowed",
    [
        ("http://[2001:db8::2]", True),
        ("http://[2001:DB8::2]", True),
        ("http://[2001:db8::2]:80", False),
        ("http://2.evil.example", False),
        ("http://2", False),
    ],
)
def test_listed_ipv6_origin_is_no_pattern(started: Callable[..., Flask], origin: str, allowed: bool) -> None:
    client = started(CORS_ORIGINS="https://a.example,http://[2001:db8::2]").test_client()

    response = client.options("/heroes/1", headers=PREFLIGHT | {"Origin": origin})

    assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer \xff", "Basic \xff", "Basic YTpi", "Digest x=\xff", "\xff", "Bearer a=b", "x" * 5000],
)
def test_malformed_authorization_is_not_authenticated(started: Callable[..., Flask], value: str) -> None:
    client = started(API_TOKENS=TOKENS).test_client()

    response = client.post("/heroes/", json=HERO, headers={"Authorization": value})

    assert (response.status_code, response.json) == (401, {"detail": "Not authenticated"})


@pytest.mark.parametrize("path", ["/docs/assets/swagger-ui.css", "/static/docs.js", "/heroes/"])
def test_date_beyond_the_calendar_is_ignored(started: Callable[..., Flask], path: str) -> None:
    client = started().test_client()

    for header in ("If-Modified-Since", "If-Unmodified-Since", "If-Range"):
        with client.get(path, headers={header: "Thu, 01 Jan 1970 00:00:00 99999999999999"}) as response:
            assert response.status_code == 200, header
