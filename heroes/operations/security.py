"""Access control: access tokens, CORS, trusted proxies."""

import re
from functools import partial
from hmac import compare_digest

from flask import Flask, Response, current_app, request
from flask_cors import CORS
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from heroes.config import TOKENLESS_METHODS
from heroes.operations.middleware import respond

# Open whatever API_TOKENS_PROTECT says: they show no data, and a token can only be entered on an open page.
OPEN_BLUEPRINTS = frozenset({"health", "docs"})
# What a script of another origin may read beyond the body.
EXPOSED = ["ETag", "Idempotent-Replayed", "Link", "Preference-Applied", "Retry-After", "X-Request-ID", "X-Total-Count"]
MAX_ECHO = 1000  # bytes of Access-Control-Allow-Headers, which repeats what the client sent


def authenticate() -> None:
    """Raise Unauthorized if the request needs a token and has no valid one."""
    config = current_app.config
    is_open = request.blueprint in OPEN_BLUEPRINTS or request.endpoint in (None, "static")
    if is_open or request.method in TOKENLESS_METHODS[config["API_TOKENS_PROTECT"]]:
        return
    # Werkzeug's parser fails on a password that is not ASCII.
    scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    # In constant time: all are compared, even after a match.
    found = sum(compare_digest(token.strip().encode(), known.encode()) for known in config["API_TOKENS"])
    if scheme.lower() != "bearer" or not found:
        # RFC 6750, 3. As `token`, because Werkzeug would not quote the realm as a parameter.
        raise Unauthorized("Not authenticated", www_authenticate=WWWAuthenticate("bearer", token='realm="heroes"'))


def finish_cors(response: Response) -> Response:
    """Complete the headers of Flask-CORS."""
    # A preflight for an unknown path has no error status: else a script could not read the 404 of its request.
    preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if preflight and response.status_code == 404:
        response.status_code = 200
    if current_app.config["CORS_ORIGINS"] != ["*"]:
        response.vary.add("Origin")
    if len(response.headers.get("Access-Control-Allow-Headers", "")) > MAX_ECHO:
        del response.headers["Access-Control-Allow-Headers"]
    return response


def init_app(app: Flask) -> None:
    """Protect the app as its settings say. Without any it is open to everybody who reaches it, as the tutorial is."""
    if app.config["API_TOKENS"] is not None:
        app.before_request(authenticate)
    if origins := app.config["CORS_ORIGINS"]:
        # The last that is registered runs first: flask-cors, then this.
        app.after_request(finish_cors)
        # flask-cors takes a string that has a bracket, as an IPv6 address has, for a regular expression.
        listed = [re.compile(rf"{re.escape(each)}\Z", re.IGNORECASE) if "[" in each else each for each in origins]
        CORS(app, origins=listed, expose_headers=EXPOSED, max_age=600, send_wildcard=True, vary_header=False)
    if hops := app.config["PROXY_HOPS"]:
        proxied = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)
        app.wsgi_app = proxied  # type: ignore[method-assign]
    app.wsgi_app = partial(respond, app.wsgi_app)  # type: ignore[method-assign]
