"""JSON responses."""

import json
from typing import Any

import orjson
from flask import Response, current_app
from flask.json.provider import DefaultJSONProvider


def default(value: Any) -> Any:
    """Serialize what orjson can't, as the app's JSON provider does."""
    return getattr(current_app.json, "default", DefaultJSONProvider.default)(value)


def to_json(content: Any) -> bytes:
    """Return compact JSON, like the tutorial's."""
    try:
        return orjson.dumps(content, default=default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # A column of JSON can hold more: integers of any size, and lone surrogates, which this escapes.
        return json.dumps(
            content, default=lambda value: orjson.loads(orjson.dumps(value, default=default)), separators=(",", ":")
        ).encode()


def json_response(content: Any, status: int | None = 200, headers: Any = None) -> Response:
    return Response(to_json(content), status, headers, content_type="application/json")
