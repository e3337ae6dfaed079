"""The deviations as rules that turn the oracle's response into the one that heroes must give.

No rule repeats the oracle's validation. If heroes rejects a value that the oracle accepts or fails on, the request is
sent to the oracle with a value that it rejects instead, and heroes' error replaces the oracle's for that value.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from tests.contract.tables import Row
from tests.contract.wire import Answer, Request

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_LENGTH = 500
MAX_BODY = 1024 * 1024
ALLOW = {
    "list": ("GET", "HEAD", "OPTIONS", "POST"),
    "hero": ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH"),
}
MESSAGES = {
    "finite_number": "Input should be a finite number",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than_equal": "Input should be less than or equal to {le}",
    "string_too_long": "String should have at most {max_length} characters",
    "string_type": "Input should be a valid string",
    "string_unicode": "Input should be a valid string, unable to parse raw data as a unicode string",
    "value_error": "Value error, must not contain NUL characters",
}

Loc = tuple[str, str]
HERO_ID: Loc = ("path", "hero_id")
# For each place a value that the oracle rejects; an id out of range becomes one that no hero has.
REFUSED: dict[Loc, Any] = {
    HERO_ID: str(INT64_MAX),
    ("query", "offset"): "x",
    ("query", "limit"): "x",
    ("body", "name"): 1,
    ("body", "age"): "x",
    ("body", "secret_name"): 1,
}
LOWEST: dict[Loc, int] = {
    HERO_ID: INT64_MIN,
    ("query", "offset"): 0,
    ("query", "limit"): 0,
    ("body", "age"): INT64_MIN,
}


@dataclass(frozen=True)
class Outcome:
    """A response and the rows of the table after it."""

    answer: Answer
    rows: list[Row]


@dataclass(frozen=True)
class ValidationError:
    """A validation error that only heroes reports, and the number of its deviation."""

    type: str
    number: int
    ctx: tuple[tuple[str, int], ...] = ()

    def entry(self, loc: Loc) -> dict[str, Any]:
        """Return its entry in a 422 response."""
        ctx = dict(self.ctx)
        entry = {"type": self.type, "loc": list(loc), "msg": MESSAGES[self.type].format(**ctx)}
        return entry | {"ctx": ctx} if ctx else entry


Ask = Callable[[Request], Outcome]


def path_of(target: str) -> str:
    """Return the decoded path of a target."""
    return unquote(target.partition("?")[0])


def canonical(target: str) -> str:
    """Return the target to which the oracle redirects: the list with a trailing slash, a hero without."""
    path, question, query = target.partition("?")
    bare = re.sub("(?:/|%2F)+$", "", path, flags=re.IGNORECASE)
    return (bare + "/" if unquote(bare) == "/heroes" else bare) + question + query


class Values:
    """The values of a request by location, and the same request with other values."""

    def __init__(self, request: Request) -> None:
        self.request = request
        path, _, query = request.target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        hero = re.fullmatch("/heroes/([^/]+)", unquote(path))
        self.path = {"hero_id": hero[1]} if hero else {}
        try:
            self.body: Any = json.loads(request.body)
        except (ValueError, RecursionError):
            self.body = request.body

    def __iter__(self) -> Iterator[tuple[Loc, Any]]:
        places = {"path": self.path, "query": self.query, "body": self.body if isinstance(self.body, dict) else {}}
        return ((loc, places[loc[0]][loc[1]]) for loc in REFUSED if loc[1] in places[loc[0]])

    def request_with(self, others: dict[Loc, Any]) -> Request:
        """Return the request with other values and without what the oracle ignores or only echoes in an error."""
        values = {loc: plain(loc, value) for loc, value in self} | others
        target, question, query = self.request.target.partition("?")
        if HERO_ID in others:
            target = f"/heroes/{quote(others[HERO_ID])}"
        if any(place == "query" for place, _ in others):
            query = urlencode({key: value for (place, key), value in values.items() if place == "query"})
        return replace(self.request, target=target + question + query, body=self._body(values))

    def _body(self, values: dict[Loc, Any]) -> bytes:
        match self.body:
            case bytes() as undecoded:
                return undecoded and b"x"
            case dict():
                return json.dumps({key: value for (place, key), value in values.items() if place == "body"}).encode()
        return b"[]"


def plain(loc: Loc, value: Any) -> Any:
    """Return a value that JSON can represent and that has the same validation errors."""
    if loc[1] == "age":
        return [] if isinstance(value, list | dict) else value
    return value if value is None or isinstance(value, str) else 1


def has_surrogates(text: str) -> bool:
    """Return whether the text can't be encoded as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def certain_error(method: str, loc: Loc, value: Any) -> ValidationError | None:
    """Return the error that only heroes reports for a value, whatever else is wrong with the request."""
    place, name = loc
    if place != "body":
        return None
    if isinstance(value, str) and has_surrogates(value):
        return ValidationError("string_unicode", 2)
    if name == "age":
        infinite = isinstance(value, float) and not math.isfinite(value)
        return ValidationError("finite_number", 2) if infinite else None
    if value is None and method == "PATCH":
        return ValidationError("string_type", 2)
    if isinstance(value, str) and len(value) > MAX_LENGTH:
        return ValidationError("string_too_long", 4, (("max_length", MAX_LENGTH),))
    if isinstance(value, str) and "\0" in value:
        return ValidationError("value_error", 4)
    return None


def magnitude(value: Any) -> int:
    """Return the integer that the oracle parses from a value, or ±2**64 if it has more than 19 digits."""
    if not isinstance(value, str):
        return int(value) if isinstance(value, int | float) else 0
    whole = value.partition(".")[0]
    digits = re.sub("[^0-9]", "", whole).lstrip("0")
    number = int(digits or "0") if len(digits) < 20 else 2**64
    return -number if "-" in whole else number


def range_error(loc: Loc, value: Any) -> ValidationError | None:
    """Return the range error that heroes reports for an integer that the oracle accepts."""
    number = magnitude(value)
    lowest = LOWEST[loc]
    if number < lowest:
        return ValidationError("greater_than_equal", 2 if lowest else 3, (("ge", lowest),))
    return ValidationError("less_than_equal", 2, (("le", INT64_MAX),)) if number > INT64_MAX else None


def entries(answer: Answer) -> list[dict[str, Any]]:
    """Return the entries of a 422 response, or none for any other status."""
    return list(answer.json["detail"]) if answer.status == 422 else []


def validated(request: Request, first: Outcome, ask: Ask) -> tuple[Outcome, set[int]]:
    """Apply deviations 2, 3 and 4: the values that only heroes rejects."""
    if first.answer.status == 400 or any(entry["type"] == "json_invalid" for entry in entries(first.answer)):
        return first, set()
    values = Values(request)
    errors = {loc: error for loc, value in values if (error := certain_error(request.method, loc, value))}
    asked = {loc: REFUSED[loc] for loc in errors}
    outcome = ask(values.request_with(asked)) if asked or first.answer.status == 500 else first
    refused = {tuple(entry["loc"]) for entry in entries(outcome.answer)}
    integers = {loc: value for loc, value in values if loc in LOWEST and not {*refused, *errors} & {loc, loc[:1]}}
    ranged = {loc: error for loc, value in integers.items() if (error := range_error(loc, value))}
    if ranged:
        errors |= ranged
        outcome = ask(values.request_with({loc: REFUSED[loc] for loc in errors}))
    if outcome is first:
        return first, set()
    found = entries(outcome.answer)
    own = {loc for loc in errors if loc != HERO_ID and any(entry["loc"] == list(loc) for entry in found)}
    detail = [errors[loc].entry(loc) if (loc := tuple(entry["loc"])) in own else entry for entry in found]
    numbers = {errors[loc].number for loc in own} | ({2} if first.answer.status == 500 else set())
    answer = replace(outcome.answer, body=json.dumps({"detail": detail})) if found else outcome.answer
    return Outcome(answer, outcome.rows), numbers


def without_input(answer: Answer) -> Answer:
    """Apply deviation 1: the response without the submitted values."""
    detail = [{key: value for key, value in entry.items() if key != "input"} for entry in entries(answer)]
    return replace(answer, body=json.dumps({"detail": detail})) if detail else answer


def path_alone(answer: Answer) -> Answer:
    """Apply deviation 10: the response with only the errors in the path."""
    detail = [entry for entry in entries(answer) if entry["loc"][0] == "path"]
    return replace(answer, body=json.dumps({"detail": detail})) if detail else answer


def with_new_id(outcome: Outcome, last_id: int) -> Outcome:
    """Apply deviation 7: a new hero's id is the last assigned id plus one."""
    hero = outcome.answer.json
    rows = [(last_id + 1, *row[1:]) if row[0] == hero["id"] else row for row in outcome.rows]
    return Outcome(replace(outcome.answer, body=json.dumps(hero | {"id": last_id + 1})), rows)


def expected(request: Request, before: list[Row], ask: Ask, last_id: int = 0) -> tuple[Outcome, set[int]]:
    """Return the response and rows that heroes must produce, and the numbers of the deviations in them.

    before: the rows; ask: sends a request to the oracle with these rows; last_id: the last id that heroes assigned.
    """
    outcome, numbers = ask(request), set[int]()
    if outcome.answer.status == 307:
        numbers.add(6)
        request = replace(request, target=canonical(request.target))
        outcome = ask(request)
    if outcome.answer.status == 405:
        return not_allowed(request, before, ask, numbers | {5})
    if len(request.body) > MAX_BODY and outcome.answer.status != 404:
        return Outcome(Answer(413, '{"detail": "Request Entity Too Large"}'), before), numbers | {8}
    outcome, own = validated(request, outcome, ask)
    numbers |= own
    answer = without_input(outcome.answer)
    if answer != outcome.answer:
        numbers.add(1)
    if path_alone(answer) != answer:
        numbers.add(10)
    outcome = Outcome(answer, outcome.rows)
    if request.method == "POST" and answer.status == 200 and answer.json["id"] <= last_id:
        return with_new_id(outcome, last_id), numbers | {7}
    return outcome, numbers


def not_allowed(request: Request, before: list[Row], ask: Ask, numbers: set[int]) -> tuple[Outcome, set[int]]:
    """Apply deviation 5: HEAD as GET, a response to OPTIONS, and a complete Allow header."""
    allow = ALLOW["list" if path_of(request.target) == "/heroes/" else "hero"]
    if request.method == "HEAD":
        outcome, _ = expected(replace(request, method="GET"), before, ask)
        return Outcome(Answer(outcome.answer.status), before), numbers
    if request.method == "OPTIONS":
        return Outcome(Answer(200, "", allow), before), numbers
    return Outcome(replace(ask(request).answer, allow=allow), before), numbers


def accepted(actual: Answer, wanted: Answer, numbers: set[int]) -> bool:
    """Return whether heroes may give this response."""
    return actual == wanted or (10 in numbers and actual == path_alone(wanted))
