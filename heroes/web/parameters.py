"""Query and header parameters that every resource has."""

from typing import Any

from marshmallow import ValidationError, validates_schema
from werkzeug.http import parse_etags

from heroes.web.fields import BaseSchema, Integer, String, error, invalid

MAX_LIMIT = 100
KEY_LENGTH = 255
# A statement takes a limited number of parameters, one for each ETag.
ETAGS: dict[str, Any] = {"max_length": 4000, "post_load": parse_etags}


class Sort(String):
    """The order of a list: id or another column, descending with "-" in front."""

    def __init__(self, *columns: str) -> None:
        self.choices = [f"{sign}{name}" for name in ("id", *columns) for sign in ("", "-")]
        metadata = {"description": "Ties are sorted by id, null comes last", "enum": self.choices}
        # Names for a generated client's enum: Kotlin does not compile `name` alone.
        metadata["x-enum-varnames"] = [f"{name.upper()}{end}" for name in ("id", *columns) for end in ("", "_DESC")]
        super().__init__(load_default="id", metadata=metadata)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value not in self.choices:
            *head, last = map(repr, self.choices)
            raise invalid("literal_error", expected=f"{', '.join(head)} or {last}")
        return str(value)


class PageQuery(BaseSchema):
    """A page of a list. A subclass adds `sort`, and filters: every other field is one.

    A filter is named after a column (equal), or that with `min_` or `max_` in front (greater or equal, less or equal).
    It can't have a data_key or an attribute: the Link to the next page would lack it.
    """

    offset = Integer(ge=0, load_default=0, metadata={"description": "How many to skip"})
    limit = Integer(ge=0, le=MAX_LIMIT, load_default=MAX_LIMIT, metadata={"description": "How many to return"})
    after = Integer(metadata={"description": "Only ids above this one; requires sort=id"})

    @validates_schema
    def check_after(self, data: dict[str, Any], **kwargs: Any) -> None:
        """Reject `after` unless the list is sorted by id."""
        if "after" in data and data["sort"] != "id":
            raise ValidationError({"after": [error("value_error", "after goes with sort=id only")]})


def header(name: str, description: str, **kwargs: Any) -> String:
    """Return the field of a header."""
    return String(data_key=name, metadata={"description": description}, **kwargs)


class CreateHeaders(BaseSchema):
    idempotency_key = header(
        "Idempotency-Key",
        "Within 24 hours the same key and values get the first response again",
        max_length=KEY_LENGTH,
    )


class ListHeaders(BaseSchema):
    prefer = header("Prefer", "count=exact asks for X-Total-Count")


class ConditionHeaders(BaseSchema):
    """Headers of a GET, PATCH or DELETE of one row."""

    if_match = header("If-Match", "ETags or *: 412 unless the current one is among them", **ETAGS)
    if_none_match = header("If-None-Match", "ETags or *: 304 or 412 if the current one is among them", **ETAGS)
