"""Who may call: tokens, origins, hosts, the proxies in front, and the headers that tell a browser what it may do."""

from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Flask, current_app, request
from flask_cors import CORS
from flask_httpauth import HTTPTokenAuth  # type: ignore[import-untyped]
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from heroes.http import needs_token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REALM = "heroes"
# Open whatever API_TOKENS_PROTECT says: they show no data, and a token can only be entered on an open page.
OPEN_BLUEPRINTS = frozenset({"health", "pages", "docs_assets", "redoc_assets"})
OPEN_ENDPOINTS = frozenset({None, "static"})

# What a script of another origin may read beyond the body.
EXPOSED = ["ETag", "Idempotent-Replayed", "Link", "Preference-Applied", "Retry-After", "X-Request-ID", "X-Total-Count"]
PREFLIGHT_AGE = 600  # seconds

SECURITY_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
]
HEADERS = [*SECURITY_HEADERS, ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")]
PAGES = {"docs", "redoc"}
# Swagger UI and ReDoc style their elements in place.
PAGE_HEADERS = [
    *SECURITY_HEADERS,
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
]


class NotAuthenticated(Unauthorized):
    """401 in FastAPI's words, with the challenge of RFC 6750, 3."""

    detail = "Not authenticated"

    def get_headers(self, *args: Any) -> list[tuple[str, str]]:
        """The headers of the answer."""
        return [*super().get_headers(*args), ("WWW-Authenticate", auth.authenticate_header())]


def known(token: str) -> bool:
    """Whether a token is one of API_TOKENS; in a time that tells neither which nor how much of it was right."""
    # A sum, not any(): every token is compared, also after one that fits.
    return sum(compare_digest(token.encode(), other.encode()) for other in current_app.config["API_TOKENS"]) > 0


def refuse(status: int) -> NoReturn:
    """Raises NotAuthenticated, whatever the status that Flask-HTTPAuth has in mind."""
    raise NotAuthenticated


auth = HTTPTokenAuth("Bearer", REALM)
auth.verify_token(known)
auth.error_handler(refuse)
check_token = auth.login_required(lambda: None)


def authenticate() -> None:
    """Raises NotAuthenticated where the request needs a token and has none that is known."""
    if request.blueprint in OPEN_BLUEPRINTS or request.endpoint in OPEN_ENDPOINTS:
        return
    if needs_token(current_app.config["API_TOKENS_PROTECT"], request.method):
        check_token()


def secured(wsgi_app: "WSGIApplication") -> "WSGIApplication":
    """A WSGI app around another that adds the security headers: the documentation's pages may load what they ship
    with, anything else nothing."""

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> "Callable[[bytes], object]":
            headers.extend(PAGE_HEADERS if environ["PATH_INFO"].strip("/") in PAGES else HEADERS)
            return start_response(status, headers, *error)

        return wsgi_app(environ, start)

    return app


def init_app(app: Flask) -> None:
    """Protects the app as its settings say; without any it is open to whoever reaches it, as the tutorial is."""
    if app.config["API_TOKENS"] is not None:
        app.before_request(authenticate)
    if app.config["CORS_ORIGINS"] is not None:
        CORS(
            app,
            origins=app.config["CORS_ORIGINS"],
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_AGE,
            send_wildcard=True,
        )
    if hops := app.config["PROXY_HOPS"]:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
        )
    app.wsgi_app = secured(app.wsgi_app)  # type: ignore[method-assign, assignment]
