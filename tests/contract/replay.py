"""Send the recorded requests to heroes and report every difference."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.test import Client, create_environ

from tests.contract.deviations import accepted
from tests.contract.record import EXCHANGES, unpacked
from tests.contract.tables import SEEDS, Row, Table
from tests.contract.wire import Answer, Request

Send = Callable[[Request], Answer]
NOT_FOUND = Answer(404, '{"detail": "Hero not found"}')


@dataclass(frozen=True)
class Exchange:
    """A recorded request and the response that heroes must give. `rows` is None if the table must not change."""

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
        """Return the exchange in a line of the file."""
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
    """Return the expected response with this Python's message and position for a JSON syntax error.

    Both apps pass on Python's message. For a trailing comma, 3.13's differs from 3.11's, which is recorded.
    """
    detail = wanted["body"]["detail"] if isinstance(wanted.get("body"), dict) and "detail" in wanted["body"] else []
    if not isinstance(detail, list) or [error["type"] for error in detail] != ["json_invalid"]:
        return wanted
    try:
        json.loads(unpacked(sent["body"]))
    except json.JSONDecodeError as error:
        entry = detail[0] | {"loc": ["body", error.pos], "ctx": {"error": error.msg}}
        return wanted | {"body": {"detail": [entry]}}
    raise ValueError(f"recorded as a JSON syntax error, but valid JSON here: {sent}")


def recorded() -> list[Exchange]:
    """Return all recorded exchanges."""
    with EXCHANGES.open() as lines:
        return [Exchange.of(number, json.loads(line)) for number, line in enumerate(lines, 1)]


def through(client: Client) -> Send:
    """Return a function that calls a WSGI app as gunicorn does: with the path percent-decoded, the rest unchanged."""

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
        # A server strips whitespace around a header's value, and passes on an empty one.
        if request.type is not None:
            environ["CONTENT_TYPE"] = request.type.strip()
        content, status, headers = client.run_wsgi_app(environ, buffered=True)
        return Answer.of(int(status[:3]), b"".join(content), headers.get("Allow"))

    return send


def differences(exchanges: Iterable[Exchange], send: Send, table: Table) -> Iterator[str]:
    """Send the requests and yield the differences. The table is reset before each, except within a flow."""
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
    """Send a request `race` times at once; return the responses by status, and those expected."""
    if exchange.race == 1:
        return [send(exchange.request)], [exchange.answer]
    with ThreadPoolExecutor(exchange.race) as pool:
        answers = list(pool.map(send, [exchange.request] * exchange.race))
    return sorted(answers, key=lambda answer: answer.status), [exchange.answer] + [NOT_FOUND] * (exchange.race - 1)
