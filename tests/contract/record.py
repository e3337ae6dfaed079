"""Record the oracle's response to every request of the corpus: `python -m tests.contract.record`.

If heroes must respond differently, that response and its deviations are recorded, too. The oracle runs from
.venv-oracle. What a newer FastAPI there changes shows in the diff of exchanges.jsonl.
"""

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.contract.corpus import Topic, topics
from tests.contract.deviations import Ask, Outcome, expected
from tests.contract.tables import SEEDS, Row, SQLiteTable, Table
from tests.contract.wire import JSON, Answer, Connection, Request, oracle

EXCHANGES = Path(__file__).with_name("exchanges.jsonl")

DOCUMENT = EXCHANGES.with_name("openapi.json")


def packed(body: bytes) -> Any:
    """Return a body as a JSON value: a text, with bytes that aren't UTF-8 as lone surrogates.

    If a byte is repeated 600 times or more, it is a list of texts and pairs [text, times].
    """
    parts = re.split(rb"((.)\2{599,})", body, flags=re.DOTALL)
    texts = [part.decode("utf-8", "surrogateescape") for part in parts]
    if len(texts) == 1:
        return texts[0]
    runs = zip(texts[1::3], texts[2::3], texts[3::3], strict=True)
    return [texts[0], *(piece for run, one, rest in runs for piece in ([one, len(run)], rest))]


def unpacked(body: Any) -> bytes:
    """Return the body that packed() encoded."""
    pieces = [body] if isinstance(body, str) else body
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces).encode(
        "utf-8", "surrogateescape"
    )


def answered(answer: Answer, rows: list[Row], before: list[Row]) -> dict[str, Any]:
    """Return a response and the table after it as a JSON object."""
    written: dict[str, Any] = {"status": answer.status, "table": "unchanged" if rows == before else rows}
    if answer.allow:
        written["allow"] = answer.allow
    if answer.body:
        written |= {"text": json.loads(answer.body[5:])} if answer.body.startswith("text:") else {"body": answer.json}
    return dict(sorted(written.items()))


def asking(connection: Connection, table: Table, before: list[Row]) -> Ask:
    """Return a function that resets the oracle's table to `before` and sends it a request."""

    def ask(request: Request) -> Outcome:
        table.reset(before)
        answer = connection.send(request)
        return Outcome(answer, table.rows())

    return ask


def seeded(connection: Connection, table: Table, seed: str) -> list[Row]:
    """Fill the oracle's table with a seed through its API, and return the rows."""
    table.reset([])
    for _, name, age, secret_name in SEEDS[seed]:
        body = json.dumps({"name": name, "age": age, "secret_name": secret_name}).encode()
        assert connection.send(Request("POST", "/heroes/", body, JSON)).status == 200
    return table.rows()


def exchange(
    topic: Topic, request: Request, before: list[Row], ask: Ask, last_id: int
) -> tuple[dict[str, Any], Outcome]:
    """Return one exchange as a JSON object, and the outcome that heroes must produce."""
    wanted, numbers = expected(request, before, ask, last_id)
    if wanted.answer.status >= 500:
        raise RuntimeError(f"no rule for the oracle's response to\n{request}")
    first = ask(request)
    if first.answer.status < 500 and first.answer.body.startswith("text:"):
        raise RuntimeError(f"rejected by the oracle's server, not by its app:\n{request}")
    theirs = answered(first.answer, first.rows, before)
    ours = answered(wanted.answer, wanted.rows, before)
    sent = {"body": packed(request.body), "method": request.method, "target": request.target, "type": request.type}
    line: dict[str, Any] = {"oracle": theirs, "request": sent, "seed": topic.seed, "topic": topic.name}
    if topic.race > 1:
        # The oracle's responses to a race are undefined; heroes gives one this response, and the others 404.
        line |= {"deviation": [9], "heroes": ours, "race": topic.race}
    elif numbers:
        line["deviation"] = sorted(numbers)
    if ours != theirs:
        line["heroes"] = ours
    if topic.flow:
        line["flow"] = True
    return dict(sorted(line.items())), wanted


def exchanges(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """Yield all exchanges of the corpus."""
    for topic in topics():
        before = seeded(connection, table, topic.seed)
        last_id = len(before)
        for request in topic.requests:
            line, wanted = exchange(topic, request, before, asking(connection, table, before), last_id)
            yield line
            if topic.flow:
                before = wanted.rows
                last_id = max([last_id, *(row[0] for row in before)])


def main() -> None:
    """Write the exchanges and the oracle's API document, and print the counts."""
    with tempfile.TemporaryDirectory() as folder, oracle(Path(folder, "oracle.db")) as connection:
        table = SQLiteTable(Path(folder, "oracle.db"))
        lines = list(exchanges(connection, table))
        document = connection.send(Request("GET", "/openapi.json")).json
        table.close()
    DOCUMENT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    EXCHANGES.write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = Counter(number for line in lines for number in line.get("deviation", []))
    totals = ", ".join(f"{number}: {count}" for number, count in sorted(counts.items()))
    print(f"{len(lines)} exchanges; by deviation {totals}", file=sys.stderr)


if __name__ == "__main__":
    main()
