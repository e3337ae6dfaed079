"""Every setting: its environment name, its default and what it is for. A test compares this with docs/settings.md.

gunicorn.conf.py runs this file by its path, so it imports nothing else of heroes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from click import ClickException
from marshmallow import EXCLUDE, Schema, ValidationError
from marshmallow.fields import Boolean, Integer, List, String
from marshmallow.validate import OneOf, Range, Regexp

VERSION = "1.0.0"
MAX_PORT = 65535
DATABASE = Regexp(
    r"\s*(?:sqlite(?:\+pysqlite)?|postgres|postgresql(?:\+psycopg)?):",
    error="Must be a sqlite:// or a postgresql:// URL.",
)
# RFC 6750, 2.1.
TOKEN = r"[A-Za-z0-9._~+/-]+=*\Z"
ORIGIN = r"(?:\*|[a-z][a-z0-9+.-]*://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?)\Z"
HOST = r"(?:\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])\Z"
# A path prefix. Browsers read "//" and a backslash as the start of a host; responses repeat it, so it is short.
PREFIX = re.compile(r"(?=.{0,250}\Z)(?:/[^/\\?#\s]+)*\Z")
# gunicorn compares SCRIPT_NAME with the path as it was sent.
IS_PREFIX = Regexp(rf"(?=[!-~]*\Z){PREFIX.pattern}", error="Must be an ASCII path without a slash at its end.")
# The values of API_TOKENS_PROTECT, each with the methods that need no token. A preflight can carry none.
TOKENLESS_METHODS = {"writes": {"GET", "HEAD", "OPTIONS"}, "all": {"OPTIONS"}}
LEVELS = ("info", "debug", "warning", "error")


class ConfigError(ClickException):
    """A setting that can't be used. The message is one line, which `flask` prints, and never shows the value."""


def address(value: str) -> None:
    """Raise ValidationError unless the value is an address that a server can listen on."""
    match = re.fullmatch(r"unix:.+|fd://[0-9]+|(?:[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,9})", value)
    if match is None or int(match[1] or 0) > MAX_PORT:
        raise ValidationError("Must be host:port, unix:path or fd://number.")


def split(value: Any) -> Any:
    """Return the entries of a comma-separated list."""
    if value is not None and not value:
        raise ValidationError("Must not be empty.")
    return value.split(",") if isinstance(value, str) else value


def env(default: Any, description: str, validate: Any = None) -> dict[str, Any]:
    """Return the arguments of a field that is read from the environment."""
    return {"load_default": default, "metadata": {"description": description}, "validate": validate}


def word(default: str, description: str, words: Iterable[str]) -> String:
    """Return the field of one of several words, case-insensitive."""
    return String(**env(default, description, OneOf(words)), pre_load=lambda value: str(value).lower())


def comma_separated(pattern: str, description: str, **kwargs: Any) -> List[str]:
    """Return the field of a list of strings that match a pattern; None if unset, never empty."""
    item = String(validate=Regexp(pattern, error="Has an entry that is empty or not well-formed."))
    return List(item, **env(None, description), pre_load=split, **kwargs)


class Settings(Schema):
    """The settings under their Flask names. A field with a data_key has another name in the environment."""

    SQLALCHEMY_DATABASE_URI = String(
        **env("sqlite:///database.db", "the database, a SQLite or PostgreSQL URL", DATABASE), data_key="DATABASE_URL"
    )
    DATABASE_TIMEOUT = Integer(
        **env(5, "seconds that a request waits for a lock, a connection or a statement, then 503", Range(1, 3600))
    )
    MAX_CONTENT_LENGTH = Integer(**env(1024 * 1024, "bytes that a body may have", Range(1)), allow_none=True)
    API_TOKENS = comma_separated(TOKEN, "comma-separated tokens, sent as `Authorization: Bearer`")
    API_TOKENS_PROTECT = word("writes", "what needs a token: `writes` or `all`", TOKENLESS_METHODS)
    CORS_ORIGINS = comma_separated(ORIGIN, "comma-separated origins whose pages may call the API, or `*`")
    # Not Flask's TRUSTED_HOSTS, which cannot hold an IPv6 address.
    ALLOWED_HOSTS = comma_separated(
        HOST, "comma-separated host names, any other is a 400; `.a.b` includes subdomains", data_key="TRUSTED_HOSTS"
    )
    PROXY_HOPS = Integer(
        **env(0, "proxies in front whose X-Forwarded-For, -Proto, -Host and -Prefix are trusted", Range(0))
    )
    ACCESS_LOG = Boolean(**env(True, "`off` drops the one line per request"))
    LOG_FORMAT = word("json", "format of all log lines: `json` or `text`", ("json", "text"))
    LOG_LEVEL = word("info", "level of all lines but the access log: `debug`, `info`, `warning` or `error`", LEVELS)
    METRICS = Boolean(**env(False, "`1` serves /metrics for Prometheus (extra `metrics`)"))
    # Read by gunicorn.conf.py.
    BIND = String(
        **env(
            None, "address to listen on, e.g. `0.0.0.0:8000` or `unix:/run/heroes/heroes.sock`; overrides PORT", address
        )
    )
    PORT = Integer(**env(8000, "port to listen on, on loopback", Range(0, MAX_PORT)))
    # gunicorn reads it, too.
    SCRIPT_NAME = String(**env(None, "path below which the API is served, e.g. `/api`", IS_PREFIX))
    WEB_CONCURRENCY = Integer(
        **env(None, "worker processes, by default twice the cores that it may use plus 1, at most 9", Range(1, 1000))
    )
    GUNICORN_THREADS = Integer(**env(3, "threads of a worker, and connections of its pool", Range(1, 1000)))
    MAX_REQUESTS = Integer(**env(0, "requests after which a worker is replaced, 0 for never", Range(0)))


def from_environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting. Raises ConfigError for the first invalid one.

    values: strings or parsed values under the settings' environment names.
    """
    try:
        return dict(Settings().load(values, unknown=EXCLUDE))
    except ValidationError as error:
        name, messages = next(iter(error.messages_dict.items()))
        # Messages about the entries of a list are keyed by their position.
        [message, *_] = messages if isinstance(messages, list) else next(iter(messages.values()))
        raise ConfigError(f"{name}: {message}") from None


def from_config(config: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return every setting: that of the Flask settings given to create_app(), or else that of the environment."""
    fields = Settings().fields.items()
    given = {field.data_key or name: config[name] for name, field in fields if name in config}
    url: Any = given.get("DATABASE_URL")
    if hasattr(url, "render_as_string"):
        # str() of SQLAlchemy's URL object hides the password.
        given["DATABASE_URL"] = url.render_as_string(hide_password=False)
    return from_environment({**environment, **given})
