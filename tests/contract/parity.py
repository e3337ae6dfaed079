"""Differential fuzzing: the same requests to the oracle and to heroes, `python -m tests.contract.parity --seed 1`.

Hypothesis builds requests from values that are likely to differ, and damages some of them. Each server has its own
database, which is reset to the same rows before every request. A difference that no deviation explains is shrunk and
printed.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

from hypothesis import HealthCheck, Phase, Verbosity, assume, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

from tests.contract import corpus
from tests.contract.deviations import accepted, expected, path_of
from tests.contract.record import asking
from tests.contract.tables import FEW, SQLiteTable
from tests.contract.wire import JSON, NOT_FOR_GRANIAN, Connection, Request, heroes, oracle

TARGET_BYTES = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "#")
TYPE_BYTES = TARGET_BYTES + "# \t\x80\xa0\xe9\xff"
# Features that the oracle lacks: a front page, filters and sorting. Damaged requests may reach them.
OWN_PATHS = {"/"}
OWN_KEYS = {"after", "name", "age", "min_age", "max_age", "sort"}
MAX_TARGET = 4000  # bytes; servers have their own limits for longer ones

numerals = st.text(st.sampled_from("0001_.+-  \t29e\x1c\xa0\u2003\u3000٣"), max_size=14)
integers = st.one_of(
    st.integers(-3, 130),
    st.integers(),
    st.builds(lambda edge, step: edge + step, st.sampled_from([2**63, -(2**63), 2**53]), st.integers(-2, 2)),
)
integer_texts = st.one_of(
    st.sampled_from(corpus.TEXTS),
    numerals,
    integers.map(str),
    st.builds("{}.{}".format, integers, st.just("0")),
    st.text(),
)
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
texts = st.one_of(st.text(max_size=12), any_text, st.sampled_from(corpus.STRINGS))
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(), integer_texts, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
heroes_sent = st.fixed_dictionaries(
    {},
    optional={
        "name": texts | values,
        "age": integer_texts | values,
        "secret_name": texts | values,
        "id": values,
        "Name": values,
        "": values,
    },
)
good_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
good_ages = st.none() | st.integers(-3, 130) | st.integers(-3, 130).map(str)
good_heroes = st.fixed_dictionaries({"name": good_texts, "secret_name": good_texts}, optional={"age": good_ages})
good_changes = st.fixed_dictionaries({}, optional={"name": good_texts, "secret_name": good_texts, "age": good_ages})
one_bad = st.builds(
    lambda hero, field, value: hero | {field: value},
    good_heroes | good_changes,
    st.sampled_from(["name", "age", "secret_name", "x"]),
    values | st.sampled_from(corpus.STRINGS) | integer_texts,
)
objects = st.one_of(good_heroes, good_changes, one_bad, heroes_sent, values)
written = st.builds(
    lambda value, ascii, pretty: json.dumps(value, ensure_ascii=ascii, indent=pretty).encode("utf-8", "surrogatepass"),
    objects,
    st.booleans(),
    st.sampled_from([None, None, 1]),
)
known = [request.body for topic in corpus.topics() for request in topic.requests if len(request.body) < 10_000]
known_bodies = st.integers(0, len(known) - 1).map(known.__getitem__)
bodies = st.one_of(
    written,
    written,
    st.builds(lambda body, encoding: recoded(body, encoding), written, st.sampled_from(corpus.ENCODINGS)),
    known_bodies,
    st.binary(max_size=12),
)
odd_types = st.sampled_from([*corpus.TYPES, None]) | st.text(st.sampled_from(TYPE_BYTES), max_size=20)
types = st.one_of(*[st.just(JSON)] * 4, odd_types)
ids = st.one_of(*[st.sampled_from("1234")] * 2, integer_texts)
quoted = st.builds(
    lambda text, safe: quote(text.encode("utf-8", "replace"), safe=safe), integer_texts, st.sampled_from(["", "+_"])
)
hero_targets = st.builds(
    lambda text, tail: f"/heroes/{quote(text.encode('utf-8', 'replace'), safe='')}{tail}",
    ids,
    st.sampled_from(["", "", "", "/", "?x=1"]),
)
pairs = st.builds(
    lambda key, value: f"{key}={value}",
    st.sampled_from(["limit", "offset", "limit", "offset", "Limit", "off%73et", "page", "x", ""]),
    quoted | st.integers(-3, 105),
)
list_targets = st.builds(
    lambda path, query: f"{path}?{query}".removesuffix("?"),
    st.sampled_from(["/heroes/", "/heroes/", "/heroes/", "/heroes"]),
    st.lists(pairs, max_size=4).map("&".join) | st.sampled_from(corpus.QUERIES),
)
targets = st.one_of(hero_targets, list_targets, st.sampled_from(corpus.PATHS + corpus.REDIRECTED))
calm_targets = st.sampled_from("123").map(corpus.hero)
calm = st.one_of(
    st.builds(corpus.post, good_heroes | one_bad),
    st.builds(corpus.patch, good_changes | one_bad, target=calm_targets),
    st.builds(corpus.delete, calm_targets),
)
# Headers that change nothing.
idle = st.sampled_from([
    ("Connection: Upgrade", "Upgrade: websocket"), ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    ("Expect: 100-continue",), ("Content-Encoding: gzip",), ("Range: bytes=0-1",), ("Accept: text/html;q=0",),
    ("Accept-Encoding: gzip",), ("X-HTTP-Method-Override: DELETE",), ("X-Original-URL: /x",), ("Cookie: a=b; =",),
    ("If-Modified-Since: Sat, 29 Oct 2050 19:43:31 GMT",), ("Authorization: Basic eDp5",), ("Origin: null",),
    ("X-Forwarded-Host: x", "X-Forwarded-Prefix: /x"), ("Access-Control-Request-Method: PATCH", "Origin: http://x"),
])  # fmt: skip
structured = st.one_of(
    calm,
    calm,
    st.builds(Request, st.just("POST"), list_targets, bodies, types),
    st.builds(Request, st.just("PATCH"), hero_targets, bodies, types),
    st.builds(Request, st.just("GET"), targets),
    st.builds(Request, st.just("DELETE"), hero_targets),
    st.builds(Request, st.sampled_from(corpus.METHODS), targets, bodies, types),
)
damages = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["drop", "double", "put"]), st.binary(max_size=3)), max_size=3
)


def recoded(body: bytes, encoding: str) -> bytes:
    """Return a body in another encoding."""
    return body.decode("utf-8", "surrogatepass").encode(encoding, "surrogatepass")


def damaged(body: bytes, where: list[tuple[float, str, bytes]]) -> bytes:
    """Return a body with bytes dropped, repeated or inserted."""
    for place, how, more in where:
        at = int(place * len(body))
        body = {
            "drop": body[:at] + body[at + 1 :],
            "double": body[:at] + body[at : at + 4] + body[at:],
            "put": body[:at] + more + body[at:],
        }[how]
    return body


def damaged_target(target: str, where: list[tuple[float, str, bytes]]) -> str:
    """Return a damaged target, of the bytes that every server accepts."""
    text = damaged(target.encode(), where).decode("latin-1")
    return "/" + "".join(character for character in text if character in TARGET_BYTES).lstrip("/")


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Draw a request, intact or damaged."""
    request: Request = draw(structured)
    part = draw(st.sampled_from(["none", "none", "none", "body", "target", "headers"]))
    if part == "body":
        request = replace(request, body=damaged(request.body, draw(damages)))
    elif part == "target":
        request = replace(request, target=damaged_target(request.target, draw(damages)))
    elif part == "headers":
        request = replace(request, headers=draw(idle))
    path, query = path_of(request.target), request.target.partition("?")[2]
    assume(path not in OWN_PATHS and not OWN_KEYS & dict(parse_qsl(query, keep_blank_values=True)).keys())
    assume(len(request.target) <= MAX_TARGET)
    return request


class Difference(AssertionError):
    """A response or a table that no deviation explains."""


@dataclass
class Pair:
    """The oracle and heroes, each with its table."""

    oracle: Connection
    oracle_table: SQLiteTable
    heroes: Connection
    heroes_table: SQLiteTable
    sent: int = 0
    explained: Counter[int] = field(default_factory=Counter)

    def compare(self, request: Request) -> None:
        """Send a request to both; raise Difference if heroes' response or table is not as expected."""
        self.sent += 1
        wanted, numbers = expected(request, FEW, asking(self.oracle, self.oracle_table, FEW))
        self.explained.update(numbers)
        self.heroes_table.reset(FEW)
        answer = self.heroes.send(request)
        rows = self.heroes_table.rows()
        if not accepted(answer, wanted.answer, numbers) or rows != wanted.rows:
            raise Difference(
                f"{request!r}\n{request}\nexpected {wanted.answer} (deviations {sorted(numbers)})\ngot      {answer}"
                + (f"\ntable: expected {wanted.rows}\n       got      {rows}" if rows != wanted.rows else "")
            )


def fuzz(count: int, number: int, server: str) -> tuple[Pair, str]:
    """Send `count` requests of the seed `number` to a new oracle and a new heroes on gunicorn or granian.

    Return the pair, and a text on the smallest request that differs, or "" if none does.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        theirs, ours = Path(folder, "oracle.db"), Path(folder, "heroes.db")
        first = stack.enter_context(oracle(theirs))
        second = stack.enter_context(heroes(ours, server))
        pair = Pair(first, SQLiteTable(theirs), second, SQLiteTable(ours))
        stack.callback(pair.oracle_table.close)
        stack.callback(pair.heroes_table.close)

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
        )
        @given(requests())
        def run(request: Request) -> None:
            assume(server != "granian" or not NOT_FOR_GRANIAN.search(f"{request.target}{request.type}"))
            pair.compare(request)

        try:
            with warnings.catch_warnings():
                # Hypothesis warns about the long description of these strategies.
                warnings.simplefilter("ignore", HypothesisWarning)
                run()
        except Difference as difference:
            return pair, str(difference)
        return pair, ""


def main() -> int:
    """Fuzz both, and return 1 if there is a difference, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=["gunicorn", "granian"], default="gunicorn")
    options = parser.parse_args()
    pair, difference = fuzz(options.requests, options.seed, options.server)
    if difference:
        print(difference)
    print("by deviation:", ", ".join(f"{number}: {count}" for number, count in sorted(pair.explained.items())))
    print(f"parity: {pair.sent} requests, {int(bool(difference))} differences (seed {options.seed})")
    return int(bool(difference))


if __name__ == "__main__":
    sys.exit(main())
