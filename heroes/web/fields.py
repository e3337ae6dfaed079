"""Fields with pydantic's coercion rules, and the base classes of schemas. Independent of Flask and SQLAlchemy.

Use them instead of marshmallow's String and Integer, which let values through that a database can't store.
The rules, error types and messages are those of pydantic 2 in lax mode (https://docs.pydantic.dev/latest/errors/).
A validation error is a mapping {"type", "loc", "msg", "ctx"?}; web.errors fills its "loc".
"""

import math
import re
import sys
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Error = dict[str, Any]

ERROR_MESSAGES = {
    "missing": "Field required",
    "finite_number": "Input should be a finite number",
    "int_type": "Input should be a valid integer",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_parsing_size": "Unable to parse input string as an integer, exceeded maximum size",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than_equal": "Input should be less than or equal to {le}",
    "string_type": "Input should be a valid string",
    "string_unicode": "Input should be a valid string, unable to parse raw data as a unicode string",
    "string_too_long": "String should have at most {max_length} characters",
    "value_error": "Value error, {reason}",
    "literal_error": "Input should be {expected}",
    "model_attributes_type": "Input should be a valid dictionary or object to extract fields from",
    "json_invalid": "JSON decode error",
}

# What Rust's str::trim treats as white space: str.strip() without U+001C to U+001F.
WHITE_SPACE = "".join(each for each in map(chr, range(0x3001)) if each.isspace() and not "\x1c" <= each <= "\x1f")

# Underscores between digits, leading zeros, a fraction of zeros; after leading zeros pydantic accepts one more sign.
# Possessive quantifiers (`*+`, `++`) prevent catastrophic backtracking.
INTEGER = re.compile(
    r"""(?: ([+-]?) (?: 0[0_]*+(?<=0) | (?:0[0_]*+)? ([1-9][0-9]*+(?:_[0-9]++)*+) )
          | \+?0[0_]*+ (-)_? (0|[1-9][0-9]*+(?:_[0-9]++)*+) )
        (?:\.0++)?""",
    re.VERBOSE,
)
# The longest integer that pydantic, like Python, reads from a string. int_parsing_size is for plain digits only.
MAX_DIGITS = min(4300, sys.get_int_max_str_digits() or 4300)
TOO_MANY_DIGITS = re.compile(rf"-?[1-9][0-9]{{{MAX_DIGITS}}}")


def error(kind: str, reason: str = "", **ctx: Any) -> Error:
    """Return a validation error of a type in ERROR_MESSAGES. `reason` and `ctx` complete its message."""
    entry: Error = {"type": kind, "loc": [], "msg": ERROR_MESSAGES[kind].format(reason=reason, **ctx)}
    return entry | {"ctx": ctx} if ctx else entry


def invalid(kind: str, reason: str = "", **ctx: Any) -> ValidationError:
    """Return the exception for one validation error. In a list, because marshmallow merges the items of two dicts."""
    return ValidationError([error(kind, reason, **ctx)])


def parse_int(text: str) -> int:
    """Return the integer, of any size, that a string stands for. Raises ValidationError."""
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)  # most are, and so need no pattern
    check_unicode(text)
    if match := INTEGER.fullmatch(text.strip(WHITE_SPACE)):
        sign, digits, late_sign, late_digits = match.groups()
        number = (digits or late_digits or "0").replace("_", "")
        if len(number) <= MAX_DIGITS:
            return -int(number) if sign == "-" or late_sign else int(number)
    raise invalid("int_parsing_size" if TOO_MANY_DIGITS.match(text) else "int_parsing")


def check_unicode(text: str) -> None:
    """Raise ValidationError `string_unicode` if a lone surrogate keeps the text from being encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid("string_unicode") from None


class Field(fields.Field[Any]):
    """The base class of the fields below."""

    def _validate(self, value: Any) -> None:
        """Run the validators. Most fields have none, and marshmallow would combine them anew for each value."""
        if self.validators:
            super()._validate(value)


class Integer(Field):
    """An integer given as a JSON number, a boolean or a string, from `ge` to `le`; None is no bound."""

    default_error_messages: dict[str, Any] = {"required": [error("missing")], "null": [error("int_type")]}

    def __init__(self, *, ge: int | None = INT64_MIN, le: int | None = INT64_MAX, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ge, self.le = ge, le

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, str):
            value = parse_int(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise invalid("finite_number")
            if not value.is_integer():
                raise invalid("int_from_float")
            if abs(value) >= 2**63:
                raise invalid("int_parsing_size")
        elif not isinstance(value, int):
            raise invalid("int_type")
        number = int(value)
        if self.ge is not None and number < self.ge:
            raise invalid("greater_than_equal", ge=self.ge)
        if self.le is not None and number > self.le:
            raise invalid("less_than_equal", le=self.le)
        return number


class Id(Integer):
    """An id in a path or a response. One that the column can't hold is loaded as None, which matches no row."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ge=None, le=None, post_load=lambda n: n if INT64_MIN <= n <= INT64_MAX else None, **kwargs)


class String(Field):
    """A string of at most `max_length` characters that both databases can store and index."""

    default_error_messages: dict[str, Any] = {"required": [error("missing")], "null": [error("string_type")]}

    def __init__(self, *, max_length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise invalid("string_type")
        if not value.isascii():
            check_unicode(value)
        if self.max_length is not None and len(value) > self.max_length:
            raise invalid("string_too_long", max_length=self.max_length)
        if "\0" in value:
            raise invalid("value_error", "must not contain NUL characters")
        return value


class BaseSchema(Schema):
    """A marshmallow schema that ignores unknown keys, as the tutorial's models do."""

    error_messages: dict[str, Any] = {"type": error("model_attributes_type")}

    class Meta:
        unknown = EXCLUDE

    def get_attribute(self, obj: Any, attr: str, default: Any) -> Any:
        """Return the value that a field dumps. A row is a dict, which needs none of marshmallow's other ways."""
        if isinstance(obj, dict) and attr in obj and "." not in attr:  # a dot makes it a path
            return obj[attr]
        return super().get_attribute(obj, attr, default)

    def load(self, data: Any, *, partial: Any = None, **kwargs: Any) -> Any:
        """Load data. In a PartialSchema, marshmallow gives a nested schema [] instead of its own `partial`."""
        return super().load(data, partial=None if partial == [] else partial, **kwargs)


class PartialSchema(BaseSchema):
    """A schema of changes: a missing field keeps its value. A nested object is replaced, so it must be complete."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.partial is None:
            # By name: True would apply to nested schemas, too.
            self.partial = tuple(self.fields)
