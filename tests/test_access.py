"""Who may call: open by default, tokens, origins, hosts, proxies; and the headers for browsers."""

import urllib.request

import pytest
from flask import Flask, request
from openapi_spec_validator import validate

from heroes import create_app

HERO = {"name": "Deadpond", "secret_name": "Dive Wilson"}
TOKENS = "first-token,second/token+=="
RIGHT = {"Authorization": "Bearer first-token"}
READS = [("GET", "/heroes/"), ("HEAD", "/heroes/"), ("GET", "/heroes/1")]
WRITES = [("POST", "/heroes/"), ("PATCH", "/heroes/1"), ("DELETE", "/heroes/1")]
OPEN = ["/", "/docs", "/redoc", "/openapi.json", "/docs/assets/swagger-ui.css", "/health/live", "/health/ready"]


@pytest.fixture
def started(monkeypatch):
    """Starts the service in memory with one hero in it: started(API_TOKENS="…"). /echo tells what it believes."""

    def start(**environment: str) -> Flask:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
        app.add_url_rule("/echo", view_func=lambda: [request.remote_addr, request.scheme, request.host])
        app.test_client().post("/heroes/", json=HERO, headers=RIGHT)
        return app

    return start


def test_open_by_default(started):
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
def test_without_a_known_token_it_is_a_401(started, protect, asked, authorization):
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT=protect).test_client()

    for method, path in asked:
        headers = {} if authorization is None else {"Authorization": authorization}
        response = client.open(path, method=method, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="heroes"'
        assert method == "HEAD" or response.json == {"detail": "Not authenticated"}
    assert client.get("/heroes/1", headers=RIGHT).status_code == 200


@pytest.mark.parametrize("authorization", ["Bearer first-token", "bearer first-token", "Bearer second/token+=="])
def test_with_a_known_token_all_is_as_without(started, authorization):
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()
    headers = {"Authorization": authorization}

    assert client.post("/heroes/", json=HERO, headers=headers).json == {"name": "Deadpond", "age": None, "id": 2}
    assert client.get("/heroes/2", headers=headers).json["name"] == "Deadpond"
    assert client.patch("/heroes/2", json={"age": 1}, headers=headers).json["age"] == 1
    assert client.delete("/heroes/2", headers=headers).json == {"ok": True}


def test_reads_stay_open_where_writes_ask(started):
    client = started(API_TOKENS=TOKENS).test_client()

    assert [client.open(path, method=method).status_code for method, path in READS] == [200, 200, 200]


@pytest.mark.parametrize("path", OPEN)
def test_documentation_and_health_are_always_open(started, path):
    client = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT="all").test_client()

    with client.get(path, follow_redirects=True) as response:
        assert response.status_code == 200


@pytest.mark.parametrize("protect, asked", [("writes", {"post", "patch", "delete"}), ("all", None)])
def test_the_document_says_where_a_token_is_asked_for(started, protect, asked):
    document = started(API_TOKENS=TOKENS, API_TOKENS_PROTECT=protect).test_client().get("/openapi.json").json

    validate(document)
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            expected = asked is None or method in asked
            assert (operation.get("security") == [{"bearer": []}]) is expected
            assert ("401" in operation["responses"]) is expected


def test_without_tokens_the_document_speaks_of_none(started):
    document = started().test_client().get("/openapi.json").json

    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for path in document["paths"].values() for operation in path.values())


PREFLIGHT = {
    "Origin": "https://a.example",
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type, authorization, if-match",
}


def test_no_other_origin_by_default(started):
    client = started().test_client()

    for response in (client.options("/heroes/1", headers=PREFLIGHT), client.get("/heroes/1", headers=PREFLIGHT)):
        assert response.status_code == 200
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("origins", ["https://a.example", "http://b.example:8080,https://a.example", "*"])
def test_pages_of_a_listed_origin_may_call(started, origins):
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


@pytest.mark.parametrize("origin", ["https://b.example", "http://a.example", "https://a.example.evil", "null"])
def test_pages_of_any_other_origin_may_not(started, origin):
    client = started(CORS_ORIGINS="https://a.example").test_client()

    response = client.options("/heroes/1", headers=PREFLIGHT | {"Origin": origin})
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    "host, status",
    [
        ("api.example", 200),
        ("api.example:8000", 200),
        ("a.b.example", 200),
        ("localhost", 400),
        ("api.example.evil", 400),
        ("evil-api.example", 400),
        ("", 400),
        ("api.example@evil", 400),
    ],
)
def test_trusted_hosts(started, host, status):
    client = started(TRUSTED_HOSTS="api.example,.b.example").test_client()

    response = client.get("/health/live", headers={"Host": host})
    assert response.status_code == status
    if status == 400:
        assert response.json == {"detail": "Bad Request"}


def test_any_host_by_default(started):
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
def test_proxy_hops_are_exact(started, hops, believed):
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
def test_every_answer_tells_browsers_to_do_nothing_with_it(started, path, status):
    response = started().test_client().get(path)

    assert response.status_code == status
    assert response.headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    [policy] = response.headers.getlist("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_run_no_script_but_their_own(started, path):
    response = started().test_client().get(path)

    [policy] = response.headers.getlist("Content-Security-Policy")
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in response.text


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_gunicorn_believes_no_header_about_where_a_request_came_from(serve):
    server = serve()
    claims = {
        "SCRIPT_NAME": "/heroes",
        "PATH_INFO": "/docs",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "6.6.6.6",
    }
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/heroes/", headers=claims), timeout=30) as answer:
        assert answer.read() == b"[]"

    assert '"route":"/heroes/"' in server.log.read_text()
    assert "6.6.6.6" not in server.log.read_text()
