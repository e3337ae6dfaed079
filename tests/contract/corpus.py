"""The requests to record, built from tables of values."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import quote

from tests.contract.deviations import MAX_BODY
from tests.contract.wire import JSON, Request

ABSENT = object()
HERO = {"name": "Tern", "secret_name": "Tess Ernst"}
OK = json.dumps(HERO).encode()


@dataclass(frozen=True)
class Topic:
    """Requests of one kind. Each starts from the rows of `seed`, or, in a flow, from where the previous one ended."""

    name: str
    requests: list[Request]
    seed: str = "few"
    flow: bool = False
    race: int = 1


def encoded(value: Any) -> bytes:
    """Return a body: bytes unchanged, anything else as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def post(value: Any, type: str | None = JSON, target: str = "/heroes/") -> Request:
    """Return a POST request."""
    return Request("POST", target, encoded(value), type)


def patch(value: Any, type: str | None = JSON, target: str = "/heroes/2") -> Request:
    """Return a PATCH request."""
    return Request("PATCH", target, encoded(value), type)


def get(target: str) -> Request:
    """Return a GET request."""
    return Request("GET", target)


def delete(target: str) -> Request:
    """Return a DELETE request."""
    return Request("DELETE", target)


def query(**values: str) -> str:
    """Return the target of the list with query parameters."""
    return "/heroes/?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in values.items())


def hero(text: str) -> str:
    """Return the target of a hero, with any text as its id."""
    return f"/heroes/{quote(text, safe='')}"


# Texts that may parse as an integer.
SIGNED = ["1", "+1", "-1", "++1", "--1", "+-1", "-+1", "+ 1", "- 1", "+", "-", "-0", "+0", "1-", "1+", "−1"]
ZEROS = [
    "0", "00", "01", "-01", "+01", "0001", "00_1", "0_1", "0__1", "-0__1", "0_", "0_0", "0-1", "0--1", "0_-0_1",
    "00_-_2",
]  # fmt: skip
UNDERSCORES = ["_", "_1", "1_", "1_0", "1__0", "-_1", "+_1", "1_0_0", "1_000", "1 000", "1,000", "1'000"]
FRACTIONS = [
    "1.0", "1.", "1.00", ".0", ".", "0.0", "-1.0", "+1.0", "01.0", "1_0.0", "1_.0", "1._0", "1.0_0", "1.5",
    "1.0.0", "1..0", "1.01", "0-1.0",
]  # fmt: skip
NUMERALS = ["1e3", "1E0", "0x1", "0b1", "0o1", "1L", "1j", "½", "١", "１", "²", "Ⅷ", "一", "𝟏"]
WORDS = [
    "", "abc", "true", "null", "None", "NaN", "inf", "Infinity", "[]", "{}", '"1"', "1;2", "1&2", "1 2", "a1",
    "1a",
]  # fmt: skip
SPACES = [
    "1 ", " 1", "\t1\n", "\r1", "\v1\f", "\x1c1", "\x1f1", "\x851", "\xa01", "\u16801", "\u20031", "\u20281",
    "\u202f1", "\u205f1", "\u30001", "\u180e1", "\u200b1", "\ufeff1", "1\u2060", " ", "\u3000", "1\0", "\0",
    " +1 ", " 1.0 ",
]  # fmt: skip
EDGES = [
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "9223372036854775808.0", "0-9223372036854775809", "2147483648", "18446744073709551616", "1" * 30,
    "-" + "1" * 30, "+" + "9" * 40, "9" * 30 + "x",
]  # fmt: skip
LONG = [
    "1" * 4300, "1" * 4301, "-" + "1" * 4301, "+" + "1" * 4301, " " + "1" * 4301, "1" * 4301 + "x",
    "0" * 4400 + "7", "x" * 4400, "1_" * 2200 + "1", "1." + "0" * 4400,
]  # fmt: skip
TEXTS = SIGNED + ZEROS + UNDERSCORES + FRACTIONS + NUMERALS + WORDS + SPACES + EDGES
# A sample, for places that parse integers in the same way.
SOME = ["1", "+3", "-1", " 2 ", "2.0", "0_3", "", "x", "1.5", "1e0", "9223372036854775807", "9223372036854775808"]

# Raw JSON, for what json.dumps can't write or writes in one way only.
NUMBERS = [
    "0", "-0", "1", "-1", "130", "1.0", "-1.0", "-0.0", "1.5", "-1.5", "0.1", "5e-1", "1e0", "1e2", "1E+2",
    "10e-1", "1e-400", "1e15", "1e18", "1e19", "-1e19", "1e300", "1e400", "-1e400", "9007199254740993.0",
    "9223372036854774784.0", "9223372036854775807.0", "-9223372036854775808.0", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "2147483647", "2147483648",
    "-2147483649", "1" * 100, "1" * 4300, "1" * 4301, "-" + "1" * 4301, "NaN", "Infinity", "-Infinity",
]  # fmt: skip
OTHERS = [
    "true", "false", "null", "[]", "[1]", "{}", '{"a": 1}', "[NaN]", '["\\ud800"]', '"\\ud800"', '"1\\udfff"',
    '"\\u0031"',
]  # fmt: skip
STRINGS = [
    "", " ", "a", "É", "é", "日本", "🦸", "👩‍🚀", "\u202eabc", "\t\n", "<b>&'\"", "%00", "null", "x" * 499, "x" * 500,
    "x" * 501, "é" * 500, "é" * 501, "🦸" * 500, "🦸" * 501, "x" * 5000, "\0", "a\0b", "x" * 600 + "\0", "\ud800",
    "a\udc00b", "\udc00\ud800", "x" * 501 + "\ud800", "\0\ud800", "\ufffe", "\u007f\u0080",
]  # fmt: skip
NO_STRINGS: list[Any] = [1, 0, 1.5, True, False, None, [], ["a"], {}, {"a": "b"}, [None], 10**30]

SYNTAX = [
    "{", "}", "[", "]", ":", ",", '"', "'", "{]", "[}", "{,}", "[,]", "[1", "[1,", "[1,]", "[1 2]", "{1:2}",
    "{a:1}", "{'a':1}", '{"a"}', '{"a":}', '{"a":1', '{"a":1,', '{"a":1,}', '{"a" 1}', '{"a":1 "b":2}', '{"a":1}}',
    '{"a":1} x', '{}{}', '{} []', "nul", "nulll", "True", "tru", "undefined", "+1", "01", "-", "- 1", "1.", ".5",
    "1e", "1e+", "0x1", "1_0", "Nan", "-NaN", "+Infinity", "-infinity", '"abc', '"a\nb"', '"a\tb"', '"\\x"',
    '"\\u12"', '"\\u12g4"', '"\\u"', '"\\', '"\x00"', "\x00", "// c\n{}", "/* c */ {}", "{} // c", "# c",
    "name=a&secret_name=b", "<hero/>", "\u00a0{}", "{}\u00a0", "\u2028", "\ufeff", "\ufeff\ufeff{}", "é", "{}\x1a",
    '{"name": "a",\n "secret_name": b}', '\r\n\t {"a": \n}', '{"日本": }', '{"🦸": x}',
]  # fmt: skip
BLANK = ["", " ", "\n", "\t\r\n  "]
SCALARS = [
    "null", "true", "false", "0", "1.5", '""', '"x"', "[]", "[[]]", "[{}]", json.dumps([HERO]), "NaN", "-Infinity",
    "[NaN]", "1e400", '"\\ud800"', json.dumps(json.dumps(HERO)),
]  # fmt: skip

TEXT = json.dumps({"name": "Ærø 🦸", "age": "7", "secret_name": "日本"}, ensure_ascii=False)
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
BROKEN = [
    b'{"name": "\xff", "secret_name": "b"}',
    b'{"name": "a\xc3", "secret_name": "b"}',
    b'{"name": "\xc0\x80", "secret_name": "b"}',
    b'{"name": "\xf4\x90\x80\x80", "secret_name": "b"}',
    b'{"name": "\xe9", "secret_name": "latin-1"}',
    b'{"\xff": 1, "name": "a", "secret_name": "b"}',
    b"\xff" + OK,
    OK + b"\xff",
    OK + b"\x80 ",
    b"\xff",
    b"\xfe\xff",
    b"\xff\xfe",
    b"\xff\xfe{",
    b"\xff\xfe\x00\x00",
    b"\x00\x00\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xef\xbb\xbf ",
    b"\xef\xbb",
    b"\xef\xbb\xbf" + b'{"name": }',
    OK.decode().encode("utf-16")[:-1],
    OK.decode().encode("utf-32")[:-2],
    "\ud800".encode("utf-16-le", "surrogatepass"),
    '{"name": "\ud800", "secret_name": "b"}'.encode("utf-16", "surrogatepass"),
    b'{"name": "\xed\xa0\x80", "secret_name": "b"}',
    b'{"name": "a", "secret_name": "\xed\xb0\x80"}',
    b'{"name": "a", "age": "\xed\xa0\x80", "secret_name": "b"}',
    b'{"name": "\xed\xa0\xbd\xed\xb8\x80", "secret_name": "b"}',
    b"\x00" + OK,
    OK + b"\x00",
    b"{\x00}\x00",
    b"1\x00",
    b"\x00\x00\x00\x00",
]
TYPES = [
    "", " ", "application/json", "Application/JSON", "APPLICATION/JSON", "application/json;",
    "application/json; charset=utf-8", "application/json;charset=latin-1", "application/json; charset=utf-16",
    "application/json ; x=y", 'application/json; a="b', 'application/json; a=";"', "application/json; ; =",
    " application/json ", "\tapplication/json", "application/vnd.api+json",
    "application/vnd.api+json; charset=utf-8", "application/problem+JSON", "application/+json",
    "application/a+b+json", "application/geo+json-seq", "application/json+xml", "application/jsonp",
    "application/xjson", "application/json/x", "application//json", "application/", "/json", "application", "json",
    "application / json", "application /json", "application/ json", "application/json, application/json",
    "application/json, text/plain", "application/json (comment)", "application/json text", '"application/json"',
    "text/json", "text/plain", "text/plain; application/json", "text/vnd.x+json",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/octet-stream", "*/*",
    "application/*", "=?utf-8?q?application/json?=", "application/json\xff", "\xe9", ";application/json",
    "; charset=utf-8", "ápplication/json",
]  # fmt: skip

PATHS = [
    "/x", "/hero", "/heroesx", "/heroes%20", "/Heroes/", "/HEROES/1", "/heroes/1/2", "/heroes/a/b", "/heroes//1",
    "//heroes/", "//heroes/1", "///", "/heroes//", "/heroes///", "/heroes/%2F", "/heroes/1%2F2", "/heroes%2F",
    "/heroes%2f1", "/%68eroes/1", "/%2Fheroes/1", "/heroes/./1", "/heroes/../heroes/1", "/./heroes/1",
    "/heroes/%2e%2e/1", "/heroes/.", "/heroes/..", "/heroes/%2E", "/heroes/...", "/heroes/*", "/heroes/~1",
    "/heroes/1,2", "/heroes/1;v=1", "/heroes/1:2", "/heroes/@1", "/heroes/$1", "/heroes/(1)", "/heroes/'1'",
    "/heroes/!", "/heroes/1=1", "/heroes/1&2", "/heroes/%", "/heroes/%2", "/heroes/1%", "/heroes/%zz",
    "/heroes/%%31", "/heroes/%2531", "/heroes/%31", "/heroes/%20", "/heroes/+", "/heroes/%2B1", "/heroes/%ff",
    "/heroes/1%ff", "/heroes/%C3%A9", "/heroes/%C0%80", "/heroes/%ED%A0%80", "/heroes/%F0%9F%98%80",
    "/heroes/%EF%BF%BD", "/heroes/%EF%BB%BF1", "/heroes/%0A1", "/heroes/1%0D%0A", "/heroes/1?", "/heroes/1??",
    "/heroes/1?limit=x", "/heroes/?", "/heroes/??", "/heroes/%3F", "/heroes/1%3Fx", "/heroes/%23",
    "/heroes/<hero_id>", "/heroes/{hero_id}", "/heroes/[1]", "/heroes/|", "/heroes/^", "/heroes/`", '/heroes/"1"',
    "/heroes/\\", "/heroes/%5C1", "/heroes/1\\", "/heroes;x", "/heroes.json", "/heroes/1.json",
]  # fmt: skip
REDIRECTED = [
    "/heroes", "/heroes?limit=1", "/heroes?limit=x&offset=1", "/heroes?", "/heroes/1/", "/heroes/1/?x=1",
    "/heroes/9/", "/heroes/x/", "/heroes/%201/", "/heroes/1%2F", "/heroes/1.0/", "/heroes/9223372036854775808/",
    "/heroes/%ff/", "/heroes/a%3Fb/", "/heroes/1//", "/heroes/1/%2F/",
]  # fmt: skip
QUERIES = [
    "limit", "limit=", "offset", "offset=", "limit=&offset=", "=", "&", "&&limit=1&&", "limit=1&", "?limit=1",
    "limit=1?", "limit=1;offset=1", "limit=1&limit=2", "limit=2&limit=1", "limit=x&limit=1", "limit=1&limit=x",
    "limit=1&limit=", "limit=101&limit=1", "limit=1&limit=101", "offset=1&offset=2", "offset=x&offset=2",
    "offset=2&offset=x", "limit=x&limit=y", "Limit=1", "LIMIT=x", "limit[]=1", "limit[0]=1", "limit%5B%5D=1",
    "limit.=1", "%6Cimit=1", "limit%20=1", "%20limit=1", "+limit=1", "limit+=1", "limit%7F=1", "limit==1",
    "limit=1=", "limit=%31", "limit=+1", "limit=1+", "limit=%2B1", "limit=%2b1", "limit=+%2B1", "limit=%",
    "limit=%3", "limit=1%", "limit=%zz", "limit=%ff", "limit=1%ff", "limit=%C2%A01", "limit=%00", "limit=1%00",
    "limit=%0A1", "limit=%26", "limit=1%26offset=1", "page=2", "id=1", "nickname=Halo", "hero_id=x",
    "limit=1&page=x", "x=%ff", "%ff=1", "%00=%00", "limit=1#x", "limit=x&offset=y", "offset=y&limit=x",
    "limit=101&offset=x", "limit=101&offset=-1", "limit=-1&offset=-1", "limit=x&offset=-1", "limit=-1&offset=x",
    "limit=1.5&offset=1e1", "a=1&b=2&limit=2&c=3", "offset=1&limit=1", "limit=0&offset=0",
    "limit=1&offset=1&limit=2&offset=0",
]  # fmt: skip
METHODS = ["HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "GET", "TRACE", "PROPFIND", "FOO", "get", "Post"]

JOINT: dict[str, list[Any]] = {
    "name": [ABSENT, None, 1, "Tern", "x" * 501, "a\0"],
    "age": [ABSENT, None, "x", 1.5, "7", 2**63],
    "secret_name": [ABSENT, None, [], "Tess", "\ud800"],
}


def present(keys: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """Return a dict without the keys whose value is ABSENT."""
    return {key: value for key, value in zip(keys, values, strict=True) if value is not ABSENT}


def written(field: str, text: str) -> bytes:
    """Return the body of a new hero with the raw JSON `text` as the value of one field."""
    fields = {key: json.dumps(value) for key, value in HERO.items()} | {field: text}
    return ("{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}").encode()


def joint() -> Iterator[dict[str, Any]]:
    """Yield heroes with combinations of valid and invalid fields."""
    for values in product(*JOINT.values()):
        plain = sum(value in ("Tern", "7", "Tess") for value in values)
        if plain != 1 or values[0] in (1, None, ABSENT):
            yield present(JOINT, values)


def keys() -> list[bytes]:
    """Return bodies with unknown, repeated and oddly spelled keys."""
    name, secret = '"name": "Tern"', '"secret_name": "Tess"'
    extras = [
        '"id": 77', '"id": "x"', '"id": null', '"Name": 1', '"NAME": "a"', '"name ": 1', '"": 1',
        '"__proto__": {}', '"hero": {}', '"created": NaN', '"x": "\\ud800"', '"\\ud800": 1', '"x": 1e400',
        '"x": [[[[]]]]', '"n\\u0061me": "Teal"', '"name": "Teal"', '"name": 1', '"age": 1, "age": 2',
        '"age": "x", "age": 2', '"age": 2, "age": "x"', '"age": null, "age": 3', '"secret_name": null',
        '"secretName": 1', '"secret-name": 1', '"age": 5, "Age": 6', '"ok": true', '"detail": "x"',
        '"x": ' + "1" * 4301,
    ]  # fmt: skip
    bodies = [f"{{{name}, {secret}, {extra}}}" for extra in extras] + [f"{{{extra}}}" for extra in extras]
    return [body.encode() for body in bodies]


def flows() -> Iterator[Topic]:
    """Yield sequences of requests."""
    several = [{"name": f"Nr {age}", "age": age, "secret_name": f"Secret {age}"} for age in (20, 30, 40)]
    page = [get("/heroes/?offset=1&limit=1"), get("/heroes/?offset=3"), get("/heroes/")]
    gone = [delete("/heroes/2"), get("/heroes/2"), patch({"age": 1}), delete("/heroes/2"), get("/heroes/")]
    again = [delete("/heroes/3"), post(HERO)]
    yield Topic(
        "flow: a client's id", [post(HERO | {"id": 9000}), get("/heroes/1"), get("/heroes/9000")], "none", flow=True
    )
    yield Topic("flow: three heroes", [post(each) for each in several] + page, "none", flow=True)
    yield Topic(
        "flow: an age cleared",
        [patch({"age": None}), get("/heroes/2"), patch({"age": "4"}), get("/heroes/2")],
        flow=True,
    )
    yield Topic("flow: a hero gone", gone, flow=True)
    yield Topic("flow: the last id again", again, flow=True)
    yield Topic("flow: all gone", [*map(delete, map(hero, "123")), get("/heroes/"), post(HERO)], flow=True)
    yield Topic("flow: a change, field by field", [
        patch({}), patch({"name": "Reed"}), patch({"secret_name": "Rhea"}), patch({"id": 7, "age": True}),
        get("/heroes/2"),
    ], flow=True)  # fmt: skip
    yield Topic(
        "flow: refused, then accepted", [post({"name": 1}), post(b"{"), post(HERO), get("/heroes/4")], flow=True
    )


def topics() -> Iterator[Topic]:
    """Yield all topics in the order of the recording."""
    yield Topic("age: text", [post(HERO | {"age": text}) for text in TEXTS])
    yield Topic("age: long text", [post(HERO | {"age": text}) for text in LONG])
    yield Topic("age: JSON", [post(written("age", text)) for text in NUMBERS + OTHERS])
    yield Topic("age: changed", [patch({"age": text}) for text in SOME] + [
        patch(b'{"age": ' + text.encode() + b"}") for text in NUMBERS[::2] + OTHERS
    ])  # fmt: skip
    for field in HERO:
        values = STRINGS + NO_STRINGS
        yield Topic(f"{field}: new", [post(HERO | {field: value}) for value in values])
        yield Topic(f"{field}: changed", [patch({field: value}) for value in values])
        yield Topic(f"{field}: JSON", [post(written(field, text)) for text in OTHERS + ["NaN", "-Infinity", "1e400"]])
    yield Topic("fields together: new", [post(body) for body in joint()])
    yield Topic("fields together: changed", [patch(body) for body in [*joint()][::3]])
    yield Topic("keys", [post(body) for body in keys()] + [patch(body) for body in keys()[::2]])
    yield Topic("syntax: new", [post(text.encode()) for text in SYNTAX + BLANK + SCALARS])
    yield Topic("syntax: changed", [patch(text.encode()) for text in SYNTAX[::4] + BLANK + SCALARS])
    texts = [TEXT, TEXT[:-1], '{"name": "é"}', "[]", "é", " "]
    yield Topic("encodings", [post(text.encode(encoding)) for text, encoding in product(texts, ENCODINGS)])
    yield Topic("encodings: broken", [post(body) for body in BROKEN] + [patch(body) for body in BROKEN[::4]])
    kinds = [*TYPES, None]
    yield Topic("types: new", [post(HERO, kind) for kind in kinds])
    yield Topic("types: changed", [patch({"age": 5}, kind) for kind in kinds[::3]])
    yield Topic("types: other bodies", [
        post(body, kind) for body in (b"", b"{", b"\xff", b'{"name": "\\ud800"}') for kind in (None, *TYPES[::9])
    ])  # fmt: skip
    yield Topic("body size", [post(OK.ljust(size)) for size in (MAX_BODY, MAX_BODY + 1)] + [
        post(b'{"name": ' + b"[" * depth + b"]" * depth + b"}") for depth in (50, 20_000)
    ])  # fmt: skip
    yield Topic("hero_id: text", [get(hero(text)) for text in TEXTS if "/" not in text])
    yield Topic("hero_id: long text", [get(hero(text)) for text in LONG])
    yield Topic("hero_id: changed", [patch({"age": 1}, target=hero(text)) for text in SOME + EDGES])
    yield Topic("hero_id: deleted", [delete(hero(text)) for text in SOME + EDGES])
    yield Topic("hero_id: and the body", [
        patch(body, target=target)
        for target in map(hero, ["x", "1.5", "9", "9223372036854775808", "-9223372036854775809"])
        for body in (
            b"", b"{", b"{}", b"[]", b"\xff", {"name": 1}, {"name": None, "age": "x"}, {"age": 2**64}, {"age": 1}
        )
    ])  # fmt: skip
    yield Topic("paths", [get(path) for path in PATHS])
    yield Topic("paths: redirected", [get(path) for path in REDIRECTED] + [
        post(HERO, target="/heroes"), post(b"{", target="/heroes"), post(HERO, target="/heroes?limit=x"),
        patch({"age": 3}, target="/heroes/2/"), patch({"age": "x"}, target="/heroes/x/"),
        delete("/heroes/2/"), delete("/heroes/x/"),
    ])  # fmt: skip
    for path in ("/heroes/", "/heroes/1", "/heroes", "/heroes/1/", "/heroes/9", "/heroes/x", "/nothing"):
        yield Topic(f"methods: {path}", [Request(method, path) for method in METHODS])
    yield Topic("bodies nobody reads", [
        Request(method, target, body, JSON)
        for method, target in (("GET", "/heroes/"), ("GET", "/heroes/1"), ("DELETE", "/heroes/1"), ("PUT", "/heroes/1"))
        for body in (b"{", b"\xff", OK)
    ])  # fmt: skip
    for name in ("limit", "offset"):
        yield Topic(f"{name}: text", [get(query(**{name: text})) for text in TEXTS + LONG[:4]])
    yield Topic("queries", [get(f"/heroes/?{text}") for text in QUERIES])
    numbers = ["0", "1", "5", "99", "100", "101", "104", "105", "106", "-1"]
    yield Topic(
        "pages", [get(query(offset=a, limit=b)) for a in numbers for b in numbers[::2]] + [get("/heroes/")], "many"
    )
    yield Topic(
        "pages: empty", [get("/heroes/"), get(query(offset="0")), get(query(limit="1")), get(query(offset="1"))], "none"
    )
    yield from flows()
    yield Topic("race", [delete("/heroes/2")], race=2)
