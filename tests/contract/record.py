"""Records what the oracle answers to every request of the corpus: `python -m tests.contract.record`.

Beside each answer stands, where it differs, what heroes must answer, and by which deviations. The oracle runs from
.venv-oracle; a newer FastAPI there shows its drift as a diff of exchanges.jsonl.
"""

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .corpus import Topic, topics
from .deviations import Ask, Outcome, expected
from .tables import SEEDS, Row, SQLiteTable, Table
from .wire import JSON, Answer, Connection, Request, oracle

EXCHANGES = Path(__file__).with_name("exchanges.jsonl")

DOCUMENT = EXCHANGES.with_name("openapi.json")


def packed(body: bytes) -> Any:
    """A body as JSON can hold it: a text (bytes that are no UTF-8 as lone surrogates), or, where a byte is repeated
    very often, a list of texts and pairs [text, times]."""
    parts = re.split(rb"((.)\2{599,})", body, flags=re.DOTALL)
    texts = [part.decode("utf-8", "surrogateescape") for part in parts]
    if len(texts) == 1:
        return texts[0]
    runs = zip(texts[1::3], texts[2::3], texts[3::3], strict=True)
    return [texts[0], *(piece for run, one, rest in runs for piece in ([one, len(run)], rest))]


def unpacked(body: Any) -> bytes:
    """The body that `packed` packed."""
    pieces = [body] if isinstance(body, str) else body
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces).encode(
        "utf-8", "surrogateescape"
    )


def answered(answer: Answer, rows: list[Row], before: list[Row]) -> dict[str, Any]:
    """An answer and the table behind it, for the file."""
    written: dict[str, Any] = {"status": answer.status, "table": "unchanged" if rows == before else rows}
    if answer.allow:
        written["allow"] = answer.allow
    if answer.body:
        written |= {"text": json.loads(answer.body[5:])} if answer.body.startswith("text:") else {"body": answer.json}
    return dict(sorted(written.items()))


def asking(connection: Connection, table: Table, before: list[Row]) -> Ask:
    """How to ask the oracle, each time with the same rows in its table."""

    def ask(request: Request) -> Outcome:
        table.reset(before)
        answer = connection.send(request)
        return Outcome(answer, table.rows())

    return ask


def seeded(connection: Connection, table: Table, seed: str) -> list[Row]:
    """Makes the rows of a seed the oracle's table, through its API."""
    table.reset([])
    for _, name, age, secret_name in SEEDS[seed]:
        body = json.dumps({"name": name, "age": age, "secret_name": secret_name}).encode()
        assert connection.send(Request("POST", "/heroes/", body, JSON)).status == 200
    return table.rows()


def exchange(
    topic: Topic, request: Request, before: list[Row], ask: Ask, last_id: int
) -> tuple[dict[str, Any], Outcome]:
    """One exchange for the file, and what heroes must answer."""
    wanted, numbers = expected(request, before, ask, last_id)
    if wanted.answer.status >= 500:
        raise RuntimeError(f"no rule for the oracle's answer to\n{request}")
    first = ask(request)
    if first.answer.status < 500 and first.answer.body.startswith("text:"):
        raise RuntimeError(f"refused by the oracle's server, not by the oracle:\n{request}")
    theirs = answered(first.answer, first.rows, before)
    ours = answered(wanted.answer, wanted.rows, before)
    sent = {"body": packed(request.body), "method": request.method, "target": request.target, "type": request.type}
    line: dict[str, Any] = {"oracle": theirs, "request": sent, "seed": topic.seed, "topic": topic.name}
    if topic.race > 1:
        # What the oracle answers to a race is anyone's guess; heroes answers one so, and the others 404.
        line |= {"deviation": [9], "heroes": ours, "race": topic.race}
    elif numbers:
        line["deviation"] = sorted(numbers)
    if ours != theirs:
        line["heroes"] = ours
    if topic.flow:
        line["flow"] = True
    return dict(sorted(line.items())), wanted


def exchanges(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """All exchanges of the corpus."""
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
    """Writes the exchanges and the oracle's API document, and prints what is in them."""
    with tempfile.TemporaryDirectory() as folder, oracle(Path(folder, "oracle.db")) as connection:
        table = SQLiteTable(Path(folder, "oracle.db"))
        lines = list(exchanges(connection, table))
        document = connection.send(Request("GET", "/openapi.json")).json
        table.close()
    DOCUMENT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    EXCHANGES.write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = Counter(number for line in lines for number in line.get("deviation", []))
    marks = ", ".join(f"{number}: {count}" for number, count in sorted(counts.items()))
    print(f"{len(lines)} exchanges; by deviation {marks}", file=sys.stderr)


if __name__ == "__main__":
    main()
