"""Rules that the API document can't express: loaded by schemathesis, see test_schemathesis.py."""

import uuid
from typing import Any

import schemathesis

from heroes.web.parameters import KEY_LENGTH


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Change what depends on more than one parameter, or on earlier requests.

    `after` is for lists in the order of ids; an Idempotency-Key that was used for another body is refused.
    """
    query, headers = case.query or {}, case.headers or {}
    if "after" in query:
        schemas = {parameter.name: parameter.definition["schema"] for parameter in case.operation.query}
        if query.get("sort") in schemas["sort"]["enum"]:
            query["sort"] = "id"
    key = headers.get("Idempotency-Key")
    if key is not None and len(key) <= KEY_LENGTH:
        headers["Idempotency-Key"] = uuid.uuid4().hex
