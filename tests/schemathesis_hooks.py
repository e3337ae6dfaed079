"""What the API document can't say of a request: loaded by schemathesis, see test_schemathesis.py."""

import uuid
from typing import Any

import schemathesis

from heroes.schemas import KEY_LENGTH, SORTS


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Changes what depends on more than one parameter, or on earlier requests.

    `after` goes with the order of ids only; an Idempotency-Key that was used for another body is refused.
    """
    if "after" in (case.query or {}) and case.query.get("sort") in SORTS:
        case.query["sort"] = "id"
    key = (case.headers or {}).get("Idempotency-Key")
    if key is not None and len(key) <= KEY_LENGTH:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
