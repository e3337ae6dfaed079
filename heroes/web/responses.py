"""JSON responses."""

from typing import Any

import orjson
from flask import Response


def json_response(content: Any, status: int = 200) -> Response:
    """Return a response with compact JSON, like the tutorial's."""
    return Response(orjson.dumps(content), status, content_type="application/json")
