"""A resource whose fields are marshmallow's own: over HTTP, with a key, in a Link, in the document, in an import."""

import datetime
import decimal
import enum
import json
import re
import textwrap
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from marshmallow import fields, validate
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Enum,
    MetaData,
    Numeric,
    Table,
    TypeDecorator,
    bindparam,
    insert,
    select,
)
from sqlalchemy import String as Characters
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from heroes.commands import resource_commands
from heroes.extensions import db
from heroes.models import IdempotencyKey
from heroes.storage.columns import Int64, ResourceMixin
from heroes.storage.transactions import read
from heroes.web.fields import BaseSchema, Id, Integer, PartialSchema, String
from heroes.web.openapi import document
from heroes.web.operation import operation
from heroes.web.parameters import ConditionHeaders, CreateHeaders, ListHeaders, PageQuery, Sort
from heroes.web.resource import Resource, link_header
from tests.constants import ROOT, Query


class Base(DeclarativeBase):
    """Apart from the tables of the service."""


class Side(enum.Enum):
    """Its names are what clients send; its values are not."""

    good = 1
    bad = 2


class Level(enum.IntEnum):
    high = 2


class Reversed(TypeDecorator[str]):
    """Text that is stored in reverse."""

    impl = Characters
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return value and str(value)[::-1]

    process_result_value = process_bind_param


class User(ResourceMixin, Base):
    """Its name is a reserved word of PostgreSQL, and has a capital letter."""

    __tablename__ = "User"

    name: Mapped[str] = mapped_column(Reversed)
    born: Mapped[datetime.date | None]
    seen: Mapped[datetime.datetime | None]
    side: Mapped[Side | None] = mapped_column(Enum(Side, native_enum=False))
    fee: Mapped[decimal.Decimal | None] = mapped_column(Numeric(8, 2))
    token: Mapped[uuid.UUID | None]
    score: Mapped[int | None]
    tags: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))


class UserCreate(BaseSchema):
    name = String(required=True, max_length=20)
    birthday = fields.Date(attribute="born", allow_none=True, load_default=None)
    seen = fields.NaiveDateTime(timezone=datetime.UTC, allow_none=True, load_default=None)
    side = fields.Enum(Side, allow_none=True, load_default=None)
    fee = fields.Decimal(allow_none=True, load_default=None, validate=validate.Range(0, 999_999))
    token = fields.UUID(allow_none=True, load_default=None)
    score = fields.Integer(allow_none=True, load_default=None)
    tags = fields.List(fields.Str(), allow_none=True, load_default=None)


class UserPublic(UserCreate):
    id = Integer(required=True)


class UserUpdate(PartialSchema, UserCreate):
    side = fields.Enum(Side, load_default=Side.good)


class UserPath(BaseSchema):
    user_id = Id(required=True)


class SidePath(BaseSchema):
    side = fields.Enum(Side, required=True)


class UserQuery(PageQuery):
    side = fields.Enum(Side)
    min_seen = fields.DateTime()
    seen = fields.NaiveDateTime(timezone=datetime.UTC)
    sort = Sort("seen")


USER = {
    "name": "Ann",
    "birthday": "2001-02-03",
    "seen": "2020-01-02T03:04:05",
    "side": "bad",
    "fee": "12.50",
    "token": "00000000-0000-0000-0000-00000000002a",
    "score": 7,
    "tags": ["a", "b"],
}


@pytest.fixture
def users(app: Flask) -> Iterator[FlaskClient]:
    """A client of /users/ on an empty table."""
    resource = Resource(User, UserPublic, keys=IdempotencyKey)

    @operation(body=UserCreate, headers=CreateHeaders, response=UserPublic, status=201)
    def create_user(user: dict[str, Any], **key: str) -> Any:
        return resource.create(user, **key)

    @operation(query=UserQuery, headers=ListHeaders, response=UserPublic(many=True))
    def read_users(query: dict[str, Any], **prefer: str) -> Any:
        return resource.page(query, **prefer)

    @operation(path=UserPath, body=UserUpdate, headers=ConditionHeaders, response=UserPublic)
    def update_user(changes: dict[str, Any], user_id: int, **conditions: Any) -> Any:
        return resource.update(user_id, changes, **conditions)

    app.add_url_rule("/users/", view_func=create_user, methods=["POST"])
    app.add_url_rule("/users/", view_func=read_users)
    app.add_url_rule("/users/<user_id>", view_func=update_user, methods=["PATCH"])
    app.cli.add_command(resource_commands("users", User, UserCreate, UserPublic))
    with app.app_context():
        Base.metadata.create_all(db.engine)
    yield app.test_client()
    with app.app_context():
        Base.metadata.drop_all(db.engine)


def test_dates_with_times_are_in_utc_on_both_databases(app: Flask) -> None:
    page = (ROOT / "docs/adding-a-resource.md").read_text()
    [code] = re.findall(r"^  ```python\n(.*?)^  ```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"datetime": datetime, "DateTime": DateTime, "TypeDecorator": TypeDecorator}
    exec(textwrap.dedent(code), names)
    made = partial(datetime.datetime.now, datetime.UTC)
    columns = (Column(name, names["UtcDateTime"], default=default) for name, default in (("at", None), ("made", made)))
    table = Table("moment", MetaData(), Column("id", Int64, primary_key=True), *columns)
    at = datetime.datetime.fromisoformat("2020-01-02T03:04:05+01:00")
    with app.app_context(), db.engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [{"at": at}, {"at": None}])
        [first, second] = connection.execute(select(table).order_by(table.c.id)).all()
        same = select(table.c.id).where(table.c.at == at, table.c.made >= first.made, table.c.made <= first.made)
        found = connection.scalars(same).all()
        table.drop(connection)

    assert first.at.isoformat() == "2020-01-02T02:04:05+00:00"
    assert second.at is None
    assert first.made.utcoffset() == datetime.timedelta(0)
    assert found == [1]


def test_keyed_post_is_replayed(users: FlaskClient, query: Query) -> None:
    headers = {"Idempotency-Key": "a"}
    first, again = (users.post("/users/", json=USER, headers=headers) for _ in range(2))

    assert (first.status_code, first.json) == (201, USER | {"id": 1})
    assert (again.status_code, again.json, again.headers["ETag"]) == (201, first.json, first.headers["ETag"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert query('SELECT count(*) FROM "User"') == [(1,)]


class UserAny(BaseSchema):
    """A user whose tags are any JSON."""

    name = String(required=True)
    tags = fields.Raw()


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a"}], ids=["plain", "keyed"])
@pytest.mark.parametrize("tags", ["\ud800", 2**70], ids=["surrogate", "large"])
def test_any_json_that_is_stored_is_returned(
    app: Flask, users: FlaskClient, runner: FlaskCliRunner, headers: dict[str, str], tags: Any
) -> None:
    resource = Resource(User, UserAny, keys=IdempotencyKey)
    create = operation(body=UserAny, headers=CreateHeaders, response=UserAny)(resource.create)
    app.add_url_rule("/any/", "create", create, methods=["POST"])
    app.add_url_rule("/any/", "read", operation(query=UserQuery, response=UserAny(many=True))(resource.page))
    app.cli.add_command(resource_commands("any", User, UserAny, UserAny))

    user = {"name": "Ann", "tags": [tags]}
    assert [users.post("/any/", json=user, headers=headers).json for _ in range(2)] == [user, user]
    assert users.get("/any/?limit=1").json == [user]
    exported = runner.invoke(args=["any", "export", "--format", "ndjson", "-"]).stdout.splitlines()
    assert json.loads(exported[0]) == user | {"id": 1}


class City(BaseSchema):
    """A user, of whose tags responses show a part."""

    city = fields.String(attribute="tags.city")


def test_an_attribute_may_be_a_path_into_a_column(app: Flask, users: FlaskClient) -> None:
    resource = Resource(User, City, keys=IdempotencyKey)
    create = operation(body=UserAny, headers=CreateHeaders, response=City)(resource.create)
    app.add_url_rule("/cities/", "create", create, methods=["POST"])
    app.add_url_rule("/cities/", "read", operation(query=UserQuery, response=City(many=True))(resource.page))

    assert users.post("/cities/", json={"name": "Ann", "tags": {"city": "Rome"}}).json == {"city": "Rome"}
    assert users.get("/cities/").json == [{"city": "Rome"}]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e400"])
def test_json_that_is_none_is_400_and_not_stored(app: Flask, users: FlaskClient, query: Query, value: str) -> None:
    resource = Resource(User, UserAny, keys=IdempotencyKey)
    app.add_url_rule("/any/", view_func=operation(body=UserAny)(resource.create), methods=["POST"])

    body = f'{{"name": "Ann", "tags": [{value}]}}'
    response = users.post("/any/", data=body, content_type="application/json")

    assert (response.status_code, response.json) == (400, {"detail": "The database can't store one of the values"})
    assert query('SELECT * FROM "User"') == []


def test_statement_without_a_value_is_500(app: Flask, client: FlaskClient) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/broken", view_func=lambda: read(select(bindparam("x")), {}))

    response = client.get("/broken")

    assert (response.status_code, response.json) == (500, {"detail": "Internal Server Error"})


class Narrow(BaseSchema):
    """Not all that the resource shows."""

    id = Integer()


@pytest.mark.parametrize("schema", [Narrow, UserPublic(only=("id",)), UserPublic(), UserPublic(exclude=("birthday",))])
def test_keyed_post_shows_what_its_view_shows(app: Flask, schema: Any) -> None:
    resource = Resource(User, UserPublic, keys=IdempotencyKey)

    @app.post("/other")
    @operation(body=UserCreate, headers=CreateHeaders, response=schema)
    def create(user: dict[str, Any], **key: str) -> Any:
        return resource.create(user, **key)

    with app.app_context():
        Base.metadata.create_all(db.engine)
    try:
        client = app.test_client()
        plain = client.post("/other", json=USER).get_json()
        for _ in range(2):
            keyed = client.post("/other", json=USER, headers={"Idempotency-Key": "a"})
            assert keyed.json == plain | {"id": 2}
    finally:
        with app.app_context():
            Base.metadata.drop_all(db.engine)


def test_link_repeats_filters_as_they_were_sent(users: FlaskClient) -> None:
    for _ in range(2):
        users.post("/users/", json=USER)

    page = users.get("/users/?side=bad&min_seen=2019-01-01T00:00:00&limit=1")
    link = page.headers["Link"].partition(">")[0].removeprefix("<")
    following = users.get(f"/users/{link}")

    assert [user["id"] for user in page.get_json()] == [1]
    assert [user["id"] for user in following.get_json()] == [2]


@pytest.mark.parametrize("sent, loaded", [("level=high", Level.high), ("active=true", True)])
def test_link_repeats_a_value_that_is_a_kind_of_integer_as_it_was_sent(app: Flask, sent: str, loaded: Any) -> None:
    name, _, _ = sent.partition("=")
    with app.test_request_context(f"/?{sent}"):
        assert link_header({name: loaded, "sort": "id"}, 1) == {"Link": f'<?{sent}&after=1>; rel="next"'}


def test_link_repeats_all_values_of_a_list(app: Flask, users: FlaskClient) -> None:
    class Users(Resource):
        def condition(self, name: str) -> Any:
            if name == "scores":
                return self.table.c.score.in_(bindparam(name, expanding=True))
            return super().condition(name)

    class Query(PageQuery):
        scores = fields.List(fields.Integer())
        sort = Sort()

    resource = Users(User, UserPublic, keys=IdempotencyKey)
    app.add_url_rule("/scored/", "scored", operation(query=Query, response=UserPublic(many=True))(resource.page))
    for score in (1, 2, 3, 1):
        users.post("/users/", json=USER | {"score": score})

    page = users.get("/scored/?scores=1&scores=2&limit=2")
    link = page.headers["Link"].partition(">")[0].removeprefix("<")
    following = users.get(f"/scored/{link}")

    assert [user["id"] for user in page.get_json()] == [1, 2]
    assert [user["id"] for user in following.get_json()] == [4]


def test_document_does_not_let_a_client_fill_in_defaults(app: Flask, users: FlaskClient) -> None:
    schemas = document(app)["components"]["schemas"]

    assert schemas["UserUpdate"]["properties"]["side"]["title"] == "Side"
    assert not any("default" in each for each in schemas["UserUpdate"]["properties"].values())


def test_null_is_documented_as_fastapi_does(app: Flask, users: FlaskClient) -> None:
    properties = document(app)["components"]["schemas"]["UserPublic"]["properties"]

    null = {"type": "null"}
    assert properties["birthday"] == {"title": "Birthday", "anyOf": [{"type": "string", "format": "date"}, null]}
    assert properties["tags"] == {"title": "Tags", "anyOf": [{"type": "array", "items": {"type": "string"}}, null]}


class Sizes(BaseSchema):
    sizes = fields.Dict(values=fields.Integer(), allow_none=True)
    number = fields.Raw(metadata={"type": ["string", "integer"]})
    nothing = fields.Raw(metadata={"type": ["null"]})
    seen = fields.DateTime(format="rfc", allow_none=True)


def test_types_of_the_metadata_and_nullable_objects_are_documented(app: Flask) -> None:
    app.add_url_rule("/sizes", view_func=operation(body=Sizes)(lambda sizes: sizes), methods=["PUT"])

    properties = document(app)["components"]["schemas"]["Sizes"]["properties"]

    numbers = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["sizes"] == {"title": "Sizes", "anyOf": [numbers, {"type": "null"}]}
    assert properties["number"] == {"title": "Number", "type": ["string", "integer"]}
    assert properties["nothing"] == {"title": "Nothing", "type": ["null"]}
    assert properties["seen"].keys() == {"title", "anyOf", "example"}
    assert properties["seen"]["anyOf"][0].keys() == {"type", "pattern"}


def test_decimal_is_documented_as_a_string(app: Flask, users: FlaskClient) -> None:
    fee = document(app)["components"]["schemas"]["UserPublic"]["properties"]["fee"]

    nullable = [{"type": "string"}, {"type": "null"}]
    assert fee == {"title": "Fee", "anyOf": nullable, "x-minimum": 0, "x-maximum": 999_999}
    assert users.post("/users/", json=USER).get_json()["fee"] == "12.50"


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_import_stores_what_a_post_stores(
    users: FlaskClient, runner: FlaskCliRunner, query: Query, tmp_path: Path, form: str
) -> None:
    scalars = USER | {"tags": None}
    file = tmp_path / f"users.{form}"
    file.write_text(
        f"{','.join(scalars)}\n{','.join(str(value or '') for value in scalars.values())}\n"
        if form == "csv"
        else json.dumps(USER)
    )

    assert users.post("/users/", json=scalars if form == "csv" else USER).status_code == 201
    imported = runner.invoke(args=["users", "import", str(file)])

    assert (imported.exit_code, imported.stderr) == (0, "1 users imported\n")
    posted, stored = query('SELECT name, born, seen, side, fee, token, tags FROM "User" ORDER BY id')
    assert (posted, posted[0]) == (stored, "nnA")
    assert len(users.get("/users/?seen=2020-01-02T03:04:05").get_json()) == 2


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_export_can_be_imported(users: FlaskClient, runner: FlaskCliRunner, tmp_path: Path, form: str) -> None:
    before = users.post("/users/", json=USER | ({"tags": None} if form == "csv" else {})).get_json()
    file = str(tmp_path / f"users.{form}")

    def run(*args: str) -> Result:
        return runner.invoke(args=["users", *args, file])

    exported = run("export")
    content = Path(file).read_text().replace('"id":1', '"id":2').replace(",1\n", ",2\n").replace("\n1,", "\n2,")
    Path(file).write_text(content)
    imported = run("import")

    assert (exported.exit_code, imported.exit_code, imported.stderr) == (0, 0, "1 users imported\n")
    assert users.get("/users/").json == [before, before | {"id": 2}]


def test_export_of_a_list_to_csv_is_a_one_line_error(users: FlaskClient, runner: FlaskCliRunner) -> None:
    users.post("/users/", json=USER)

    exported = runner.invoke(args=["users", "export", "--format", "csv", "-"])

    assert exported.exit_code == 1
    assert exported.stderr == "Error: id 1: tags is a list or an object, which CSV can't hold.\n"


def test_invalid_values_are_one_line_each(users: FlaskClient, runner: FlaskCliRunner, tmp_path: Path) -> None:
    file = tmp_path / "users.ndjson"
    file.write_text(
        '{"name": "a", "seen": "x", "tags": [1]}\n{"name": 1}\n{"name": "a", "seen": "9999-12-31T23:59:59-14:00"}\n'
    )

    imported = runner.invoke(args=["users", "import", "--skip-errors", str(file)])

    assert imported.stderr.splitlines() == [
        "line 1: seen: Value error, Not a valid datetime; tags: 0: Value error, Not a valid string",
        "line 2: name: Input should be a valid string",
        "line 3: Value error, Date or number out of range",
        "0 users imported, 3 lines skipped",
    ]


def test_integer_that_the_column_cannot_hold_ends_an_import_in_one_line(
    users: FlaskClient, runner: FlaskCliRunner, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "users.ndjson"
    file.write_text(json.dumps({"name": "a", "score": 2**63 - 1}) + "\n" + json.dumps({"name": "a", "score": "9" * 30}))

    imported = runner.invoke(args=["users", "import", str(file)])

    assert (imported.exit_code, imported.stderr.count("\n")) == (1, 1)
    assert imported.stderr.startswith("Error: database: ")
    assert query('SELECT count(*) FROM "User"') == [(0,)]


def test_a_list_below_another_resource_is_a_page(app: Flask, users: FlaskClient) -> None:
    resource = Resource(User, UserPublic, keys=IdempotencyKey)

    @app.get("/sides/<side>/users")
    @operation(query=UserQuery, headers=ListHeaders, response=UserPublic(many=True), path=SidePath)
    def read_side(query: dict[str, Any], side: Side, **prefer: str) -> Any:
        return resource.page(query | {"side": side}, **prefer)

    for side in ("good", "bad", "bad"):
        users.post("/users/", json=USER | {"side": side})
    page = users.get("/sides/bad/users?limit=1", headers={"Prefer": "count=exact"})

    assert [user["id"] for user in page.get_json()] == [2]
    assert (page.headers["X-Total-Count"], page.headers["Link"]) == ("2", '<?limit=1&after=2>; rel="next"')


def test_dates_with_any_offset_are_compared_in_utc(users: FlaskClient) -> None:
    users.post("/users/", json=USER | {"seen": "2020-01-02T05:04:05+02:00"})

    page = users.get("/users/", query_string={"seen": "2020-01-01T23:04:05-04:00"})

    assert [user["seen"] for user in page.get_json()] == ["2020-01-02T03:04:05"]


@pytest.mark.parametrize("seen", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_date_that_leaves_the_calendar_in_utc_is_422(users: FlaskClient, seen: str) -> None:
    expected = {"type": "value_error", "loc": ["body"], "msg": "Value error, Date or number out of range."}

    assert users.post("/users/", json=USER | {"seen": seen}).json == {"detail": [expected]}
    assert users.get("/users/", query_string={"seen": seen}).json == {"detail": [expected | {"loc": ["query"]}]}


@pytest.mark.parametrize("user_id", [2**63, -(2**70)])
def test_id_that_the_column_cannot_hold_is_404(users: FlaskClient, query: Query, user_id: int) -> None:
    users.post("/users/", json=USER)
    query(f'UPDATE "User" SET id = {-(2**63)}')

    assert users.patch(f"/users/{user_id}", json={"name": "a"}).status_code == 404
    assert [user["name"] for user in users.get("/users/").get_json()] == ["Ann"]


def test_resource_without_autoincrement_is_refused() -> None:
    class Item(ResourceMixin, Base):
        __tablename__ = "item"
        __table_args__ = {"comment": "its ids would be given out again"}

    with pytest.raises(TypeError, match="Item needs ResourceMixin, and sqlite_autoincrement"):
        Resource(Item, UserPublic, keys=IdempotencyKey)
    Base.metadata.remove(Base.metadata.tables["item"])
