"""Sends the recorded requests to heroes and tells every difference."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.test import Client, create_environ

from .deviations import accepted
from .record import EXCHANGES, unpacked
from .tables import SEEDS, Row, Table
from .wire import Answer, Request

Send = Callable[[Request], Answer]
NOT_FOUND = Answer(404, '{"detail": "Hero not found"}')


@dataclass(frozen=True)
class Exchange:
    """A recorded exchange: what to send, and what heroes must answer; `rows` is None where the table stays."""

    line: int
    topic: str
    seed: list[Row]
    flow: bool
    race: int
    request: Request
    answer: Answer
    rows: list[Row] | None
    deviations: frozenset[int]

    @classmethod
    def of(cls, number: int, line: dict[str, Any]) -> "Exchange":
        """The exchange that a line of the file holds."""
        sent, wanted = line["request"], in_this_python(line["request"], line.get("heroes", line["oracle"]))
        return cls(
            number,
            line["topic"],
            SEEDS[line["seed"]],
            line.get("flow", False),
            line.get("race", 1),
            Request(sent["method"], sent["target"], unpacked(sent["body"]), sent["type"]),
            Answer(
                wanted["status"],
                json.dumps(wanted["body"]) if "body" in wanted else "",
                tuple(wanted.get("allow", ())),
            ),
            None if wanted["table"] == "unchanged" else [tuple(row) for row in wanted["table"]],
            frozenset(line.get("deviation", ())),
        )


def in_this_python(sent: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A wanted answer with the words and the position that this Python's json has for a JSON syntax error.

    Both apps hand on what their Python says, and 3.13 says more of a trailing comma than 3.11, which recorded it.
    """
    detail = wanted["body"]["detail"] if isinstance(wanted.get("body"), dict) and "detail" in wanted["body"] else []
    if not isinstance(detail, list) or [fault["type"] for fault in detail] != ["json_invalid"]:
        return wanted
    try:
        json.loads(unpacked(sent["body"]))
    except json.JSONDecodeError as error:
        fault = detail[0] | {"loc": ["body", error.pos], "ctx": {"error": error.msg}}
        return wanted | {"body": {"detail": [fault]}}
    raise ValueError(f"recorded as a JSON syntax error, and none here: {sent}")


def recorded() -> list[Exchange]:
    """All recorded exchanges."""
    with EXCHANGES.open() as lines:
        return [Exchange.of(number, json.loads(line)) for number, line in enumerate(lines, 1)]


def through(client: Client) -> Send:
    """Sends requests to a WSGI application as gunicorn hands them over: the path as bytes, the rest as it came."""

    def send(request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        environ = create_environ(method=request.method, input_stream=io.BytesIO(request.body))
        environ |= {
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": request.target,
            "REQUEST_URI": request.target,
            "CONTENT_LENGTH": str(len(request.body)),
        }
        # A server passes on a header without its white space, and an empty one, too.
        if request.type is not None:
            environ["CONTENT_TYPE"] = request.type.strip()
        content, status, headers = client.run_wsgi_app(environ, buffered=True)
        return Answer.of(int(status[:3]), b"".join(content), headers.get("Allow"))

    return send


def differences(exchanges: Iterable[Exchange], send: Send, table: Table) -> Iterator[str]:
    """Sends the requests, the ones of a flow one after the other, the others each with a fresh table; what differs."""
    before, flow = list[Row](), ""
    for exchange in exchanges:
        if not exchange.flow or exchange.topic != flow:
            before = exchange.seed
            table.reset(before)
            flow = exchange.topic
        rows = before if exchange.rows is None else exchange.rows
        answers, wanted = raced(exchange, send)
        found = table.rows()
        fits = all(accepted(*pair, set(exchange.deviations)) for pair in zip(answers, wanted, strict=True))
        if not fits or found != rows:
            yield (
                f"exchanges.jsonl:{exchange.line} ({exchange.topic}, deviations {sorted(exchange.deviations)})\n"
                f"  {exchange.request}\n  expected {wanted}\n  got      {answers}"
                + (f"\n  table: expected {rows}\n         got      {found}" if found != rows else "")
            )
        before = rows


def raced(exchange: Exchange, send: Send) -> tuple[list[Answer], list[Answer]]:
    """The answers to a request, sent as many times at once as its race has runners, and those it must get."""
    if exchange.race == 1:
        return [send(exchange.request)], [exchange.answer]
    with ThreadPoolExecutor(exchange.race) as pool:
        answers = list(pool.map(send, [exchange.request] * exchange.race))
    return sorted(answers, key=lambda answer: answer.status), [exchange.answer] + [NOT_FOUND] * (exchange.race - 1)
