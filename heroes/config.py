"""Every setting: its environment name, its default, what it is for. The README's table is held against this one."""

from collections.abc import Mapping
from typing import Any

from click import ClickException
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

MAX_BODY = 1024 * 1024  # bytes


class ConfigError(ClickException):
    """A setting that can't be used, told in one line."""


def setting(field: type[fields.Field[Any]], name: str, default: Any, about: str, **kwargs: Any) -> fields.Field[Any]:
    """A field that reads the environment variable `name`; `about` is its line in the README."""
    return field(data_key=name, load_default=default, metadata={"description": about}, **kwargs)


class Settings(Schema):
    """Flask's configuration key = where the environment has it."""

    class Meta:
        unknown = EXCLUDE

    MAX_CONTENT_LENGTH = setting(
        fields.Integer, "MAX_CONTENT_LENGTH", MAX_BODY, "bytes that a body may have", validate=validate.Range(min=1)
    )
    SQLALCHEMY_DATABASE_URI = setting(
        fields.String, "DATABASE_URL", "sqlite:///database.db", "the database, a SQLite or PostgreSQL URL"
    )
    DATABASE_TIMEOUT = setting(
        fields.Integer,
        "DATABASE_TIMEOUT",
        5,
        "seconds that a request waits for a lock, a connection or a statement before it is answered 503",
        validate=validate.Range(min=1),
    )
    GUNICORN_THREADS = setting(
        fields.Integer, "GUNICORN_THREADS", 4, "threads of a worker, and connections of its pool", validate=validate.Range(min=1)
    )


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings under their Flask names. Raises ConfigError for the first that is wrong, never naming its value."""
    try:
        settings: dict[str, Any] = Settings().load(environ)
    except ValidationError as error:
        name, messages = next(iter(error.messages_dict.items()))
        raise ConfigError(f"{name}: {messages[0]}") from None
    return settings
