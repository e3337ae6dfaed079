"""Every setting: its environment name, its default, what it is for. The README's table is held against this one."""

from collections.abc import Mapping
from typing import Any

from click import ClickException
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from webargs.fields import DelimitedList

VERSION = "1.0.0"
MAX_BODY = 1024 * 1024  # bytes

# What a bearer token may look like: RFC 6750, 2.1.
TOKEN = r"[A-Za-z0-9._~+/-]+=*\Z"
ORIGIN = r"(?:\*|https?://[A-Za-z0-9.-]+(?::[0-9]+)?)\Z"
HOST = r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\Z"


class ConfigError(ClickException):
    """A setting that can't be used, told in one line."""


class Word(fields.String):
    """One of a few words, in whichever case."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        return str(super()._deserialize(value, attr, data, **kwargs)).lower()


def setting(field: type[fields.Field[Any]], name: str, default: Any, about: str, **kwargs: Any) -> fields.Field[Any]:
    """A field that reads the environment variable `name`; `about` is its line in the README."""
    return field(data_key=name, load_default=default, metadata={"description": about}, **kwargs)


def number(name: str, default: int | None, lowest: int, about: str) -> fields.Field[Any]:
    """A whole number from `lowest` up."""
    return setting(fields.Integer, name, default, about, validate=validate.Range(min=lowest))


def word(name: str, words: tuple[str, ...], about: str) -> fields.Field[Any]:
    """One of `words`, the first where nothing is said."""
    return setting(Word, name, words[0], about, validate=validate.OneOf(words))


def several(name: str, pattern: str, about: str) -> fields.Field[Any]:
    """A comma-separated list of what fits `pattern`; None where nothing is said, and never empty."""
    item = fields.String(validate=validate.Regexp(pattern, error="Has an entry that is empty or not well-formed."))
    return setting(
        DelimitedList,
        name,
        None,
        about,
        cls_or_instance=item,
        validate=validate.Length(min=1, error="Must not be empty."),
    )


class Settings(Schema):
    """Flask's configuration key = where the environment has it."""

    class Meta:
        unknown = EXCLUDE

    SQLALCHEMY_DATABASE_URI = setting(
        fields.String, "DATABASE_URL", "sqlite:///database.db", "the database, a SQLite or PostgreSQL URL"
    )
    DATABASE_TIMEOUT = number(
        "DATABASE_TIMEOUT",
        5,
        1,
        "seconds that a request waits for a lock, a connection or a statement before it is answered 503",
    )
    MAX_CONTENT_LENGTH = number("MAX_CONTENT_LENGTH", MAX_BODY, 1, "bytes that a body may have")

    API_TOKENS = several("API_TOKENS", TOKEN, "comma-separated tokens, one of which a client must send as Bearer")
    API_TOKENS_PROTECT = word("API_TOKENS_PROTECT", ("writes", "all"), "what asks for a token: `writes` or `all`")
    CORS_ORIGINS = several("CORS_ORIGINS", ORIGIN, "comma-separated origins whose pages may call the API, or `*`")
    TRUSTED_HOSTS = several(
        "TRUSTED_HOSTS",
        HOST,
        "comma-separated host names that are answered, any other is a 400; `.a.b` has those below",
    )
    PROXY_HOPS = number("PROXY_HOPS", 0, 0, "proxies in front whose X-Forwarded-For, -Proto and -Host are believed")

    ACCESS_LOG = setting(fields.Boolean, "ACCESS_LOG", True, "`off` drops the one line per request")
    LOG_FORMAT = word("LOG_FORMAT", ("json", "text"), "of all log lines: `json` or `text`")
    LOG_LEVEL = word(
        "LOG_LEVEL",
        ("info", "debug", "warning", "error"),
        "of all log lines but the requests': `debug`, `info`, `warning` or `error`",
    )
    METRICS = setting(fields.Boolean, "METRICS", False, "`1` serves /metrics for Prometheus (extra `metrics`)")

    # The rest is read by gunicorn.conf.py, which says why it can't read it from here.
    BIND = setting(
        fields.String, "BIND", None, "address to listen on, e.g. `0.0.0.0:8000` or `unix:/run/heroes.sock`; before PORT"
    )
    PORT = number("PORT", 8000, 0, "port to listen on, on loopback")
    WEB_CONCURRENCY = number("WEB_CONCURRENCY", None, 1, "worker processes; twice the cores and one more, at most 9")
    GUNICORN_THREADS = number("GUNICORN_THREADS", 3, 1, "threads of a worker, and connections of its pool")
    PIN_WORKERS = setting(
        fields.Boolean,
        "PIN_WORKERS",
        False,
        "`1` keeps each worker on one core: faster on a machine that serves nothing else",
    )
    MAX_REQUESTS = number("MAX_REQUESTS", 100_000, 0, "requests after which a worker is replaced, 0 for never")


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings under their Flask names. Raises ConfigError for the first that is wrong, never naming its value."""
    try:
        settings: dict[str, Any] = Settings().load(environ)
    except ValidationError as error:
        name, messages = next(iter(error.messages_dict.items()))
        # A list's faults are kept by the position of the entry.
        [message, *_] = messages if isinstance(messages, list) else next(iter(messages.values()))
        raise ConfigError(f"{name}: {message}") from None
    return settings
