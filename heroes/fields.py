"""The scalar fields, with the coercion rules of the tutorial.

The rules, error types and words are those of pydantic 2 in its lax mode (https://docs.pydantic.dev/latest/errors/).
A fault is a mapping {"type", "msg", "ctx"?}; whoever loads the schema adds its "loc".
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import ValidationError, fields, missing

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Fault = dict[str, Any]

FAULTS: Mapping[str, str] = {
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

# What Rust's str::trim takes for white space: str.strip() without U+001C to U+001F.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

# Underscores between digits, leading zeros, a fraction of zeros; behind leading zeros pydantic takes one more sign.
# The quantifiers are possessive (`*+`, `++`): no text, however long, makes the match go back.
INTEGER = re.compile(
    r"""(?: ([+-]?) (?: 0[0_]*+(?<=0) | (?:0[0_]*+)? ([1-9][0-9]*+(?:_[0-9]++)*+) )
          | \+?0[0_]*+ (-)_? (0|[1-9][0-9]*+(?:_[0-9]++)*+) )
        (?:\.0++)?""",
    re.VERBOSE,
)
# The longest integer that pydantic, like Python, reads from a string; it only says so of one written plainly.
MAX_DIGITS = 4300
TOO_MANY_DIGITS = re.compile(rf"-?[1-9][0-9]{{{MAX_DIGITS}}}")


def fault(type: str, reason: str = "", **ctx: Any) -> Fault:
    """The fault of a type of FAULTS: its words, with the `reason` where they want one, and `ctx` where there is any."""
    entry: Fault = {"type": type, "msg": FAULTS[type].format(reason=reason, **ctx)}
    return entry | {"ctx": ctx} if ctx else entry


def parse_int(text: str) -> int:
    """The integer that a text stands for, of any size.

    Raises ValidationError: `string_unicode`, `int_parsing_size` or `int_parsing`.
    """
    if len(text) < 19 and text.isascii() and text.isdecimal():
        return int(text)
    check_unicode(text)
    if match := INTEGER.fullmatch(text.strip(WHITE_SPACE)):
        sign, digits, late_sign, late_digits = match.groups()
        number = (digits or late_digits or "0").replace("_", "")
        if len(number) <= MAX_DIGITS:
            return -int(number) if sign == "-" or late_sign else int(number)
    raise ValidationError(fault("int_parsing_size" if TOO_MANY_DIGITS.match(text) else "int_parsing"))


def check_unicode(text: str) -> None:
    """Raises ValidationError `string_unicode` where a lone surrogate keeps the text from being UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValidationError(fault("string_unicode")) from None


class Scalar(fields.Field[Any]):
    """A field whose values are dumped as they are, and whose absence is the tutorial's `missing`."""

    type_fault: str
    default_error_messages: dict[str, Any] = {"required": fault("missing")}

    def _validate_missing(self, value: Any) -> None:
        if value is missing and self.required:
            raise self.make_error("required")
        if value is None and not self.allow_none:
            raise ValidationError(fault(self.type_fault))

    def _validate(self, value: Any) -> None:
        if self.validators:
            super()._validate(value)


class Int(Scalar):
    """An integer from `ge` to `le` (by default what a signed 64-bit column holds; None is no bound), given as
    a JSON number, a boolean or a text."""

    type_fault = "int_type"

    def __init__(self, *, ge: int | None = INT64_MIN, le: int | None = INT64_MAX, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ge, self.le = ge, le

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, int):
            number = int(value)
        elif isinstance(value, str):
            number = parse_int(value)
        elif not isinstance(value, float):
            raise ValidationError(fault("int_type"))
        elif not math.isfinite(value):
            raise ValidationError(fault("finite_number"))
        elif not value.is_integer():
            raise ValidationError(fault("int_from_float"))
        elif abs(value) >= 2**63:
            raise ValidationError(fault("int_parsing_size"))
        else:
            number = int(value)
        if self.ge is not None and number < self.ge:
            raise ValidationError(fault("greater_than_equal", ge=self.ge))
        if self.le is not None and number > self.le:
            raise ValidationError(fault("less_than_equal", le=self.le))
        return number


class Str(Scalar):
    """A text of at most `max_length` characters that both databases can store and index."""

    type_fault = "string_type"

    def __init__(self, *, max_length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(fault("string_type"))
        check_unicode(value)
        if self.max_length is not None and len(value) > self.max_length:
            raise ValidationError(fault("string_too_long", max_length=self.max_length))
        if "\0" in value:
            raise ValidationError(fault("value_error", "must not contain NUL characters"))
        return value


class OneOf(Scalar):
    """One of a few words."""

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = words

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value not in self.words:
            *head, last = (repr(word) for word in self.words)
            raise ValidationError(fault("literal_error", expected=f"{', '.join(head)} or {last}"))
        return str(value)
