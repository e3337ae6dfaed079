"""Each library behaves as its documentation says, when a view, a schema or a column is added."""

import collections
import datetime
import decimal
import subprocess
import sys
from functools import partial, wraps
from io import BytesIO
from typing import Any, NoReturn

import flask
import flask.views
import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient
from marshmallow import ValidationError, fields, post_dump, post_load, validate, validates_schema
from sqlalchemy import NullPool, QueuePool, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound

from heroes import create_app
from heroes.config import ConfigError
from heroes.extensions import db
from heroes.models import Hero, IdempotencyKey
from heroes.schemas import HeroBase, HeroCreate, HeroPath, HeroPublic, HeroQuery, HeroUpdate
from heroes.web import fields as own
from heroes.web.operation import operation
from heroes.web.requests import match_without_slash
from heroes.web.resource import Resource
from tests.constants import HERO, ROOT, Query, public, stored

ROW = public(age=30)


# --- Flask-SQLAlchemy ------------------------------------------------------------------------------------------------


def test_rollback_undoes_a_flush(app: Flask, query: Query) -> None:
    with app.app_context():
        db.session.add(Hero(**HERO))
        db.session.flush()
        db.session.rollback()

    assert query("SELECT count(*) FROM hero") == [(0,)]


def test_failed_unit_of_work_is_rolled_back(app: Flask, query: Query) -> None:
    with app.app_context(), pytest.raises(IntegrityError):
        db.session.add_all([Hero(id=1, **HERO), Hero(id=1, **HERO)])
        db.session.commit()

    assert query("SELECT count(*) FROM hero") == [(0,)]


def test_uncommitted_changes_are_rolled_back_with_the_context(app: Flask, query: Query) -> None:
    with app.app_context():
        db.session.add(Hero(**HERO))
        db.session.flush()

    assert query("SELECT count(*) FROM hero") == [(0,)]


def test_a_read_of_a_resource_leaves_the_session_transactional(app: Flask, client: FlaskClient, query: Query) -> None:
    from heroes.views import heroes

    client.post("/heroes/", json=HERO)
    with app.test_request_context():
        heroes.find(1)
        db.session.add(Hero(**HERO))
        db.session.flush()
        db.session.rollback()

    assert query("SELECT count(*) FROM hero") == [(1,)]


def test_engine_options_and_binds_are_honoured() -> None:
    app = create_app(
        {
            "SQLALCHEMY_DATABASE_URI": "sqlite://",
            "SQLALCHEMY_ENGINE_OPTIONS": {
                "echo": False,
                "connect_args": {"cached_statements": 7},
                "query_cache_size": 11,
            },
            "SQLALCHEMY_BINDS": {"other": "sqlite://"},
        }
    )
    with app.app_context():
        assert db.engines["other"].url.database is None
        assert db.engine.hide_parameters
        assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"]["cached_statements"] == 7
        assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"]["check_same_thread"] is False
        assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["query_cache_size"] == 11


def test_the_uri_in_the_configuration_stays(app: Flask, database_url: str) -> None:
    assert app.config["SQLALCHEMY_DATABASE_URI"] == database_url


def test_the_default_bind_is_not_ignored() -> None:
    with pytest.raises(ConfigError, match="SQLALCHEMY_DATABASE_URI"):
        create_app({"SQLALCHEMY_BINDS": {None: "sqlite://"}})


# --- marshmallow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [Hero(secret_name="s", **ROW), ROW | {"secret_name": "s"}], ids=["object", "dict"])
def test_a_schema_dumps(given: Any) -> None:
    assert HeroPublic().dump(given) == ROW
    assert HeroPublic(many=True).dump([given]) == [ROW]


@pytest.mark.parametrize("kind", [dict, partial(collections.defaultdict, str)], ids=["dict", "defaultdict"])
def test_a_dotted_attribute_is_a_path(kind: Any) -> None:
    class Public(own.BaseSchema):
        city = own.String(attribute="address.city")

    assert Public().dump(kind({"address": {"city": "Berlin"}, "address.city": "Rome"})) == {"city": "Berlin"}
    assert Public().dump(kind({"address": {"city": "Berlin"}})) == {"city": "Berlin"}


def test_a_schema_dumps_a_row(app: Flask, client: FlaskClient) -> None:
    client.post("/heroes/", json=HERO | {"age": 30})
    with app.app_context():
        row = db.session.execute(select(Hero.__table__)).one()

    assert HeroPublic().dump(row) == ROW


def test_a_schema_loads_with_many_partial_and_unknown() -> None:
    created = stored()
    del created["id"]

    assert HeroCreate(many=True).load([HERO]) == [created]
    assert HeroCreate().load({"age": 1}, partial=True) == {"age": 1}
    with pytest.raises(ValidationError):
        HeroCreate(unknown="raise").load(HERO | {"x": 1})


def test_hooks_and_nested_schemas_work_and_their_errors_are_located(app: Flask) -> None:
    class League(own.BaseSchema):
        name = own.String(required=True, validate=validate.Length(min=2))
        founded = fields.Date()
        heroes = fields.Nested(HeroCreate, many=True)

        @validates_schema(skip_on_field_errors=False)
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            if not data.get("heroes"):
                raise ValidationError("Needs heroes.")

        @post_load
        def add(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            return data | {"hooked": True}

    @app.post("/leagues", endpoint="leagues")
    @operation(body=League, response=League, status=201, errors={202: "Accepted"})
    def create_league(league: dict[str, Any]) -> dict[str, Any]:
        assert league["hooked"]
        return league

    client = app.test_client()
    good = client.post("/leagues", json={"name": "ab", "founded": "2026-01-02", "heroes": [HERO]})
    bad = client.post("/leagues", json={"name": "a", "founded": "x", "heroes": [{"name": "b"}]})
    document = client.get("/openapi.json").get_json()

    assert good.status_code == 201
    assert (good.get_json()["founded"], good.get_json()["heroes"][0]["name"]) == ("2026-01-02", "Deadpond")
    assert [(each["type"], each["loc"], each["msg"]) for each in bad.get_json()["detail"]] == [
        ("value_error", ["body", "name"], "Value error, Shorter than minimum length 2."),
        ("value_error", ["body", "founded"], "Value error, Not a valid date."),
        ("missing", ["body", "heroes", 0, "secret_name"], "Field required"),
    ]
    assert client.post("/leagues", json={"name": "ab"}).get_json()["detail"] == [
        {"type": "value_error", "loc": ["body"], "msg": "Value error, Needs heroes."}
    ]
    responses = document["paths"]["/leagues"]["post"]["responses"]
    assert responses["201"]["content"] == responses["202"]["content"]
    assert document["components"]["schemas"]["League"]["properties"]["founded"]["format"] == "date"


class Place(own.BaseSchema):
    city = own.String(required=True)
    street = own.String(required=True)


class Crew(own.BaseSchema):
    name = own.String(required=True)
    place = fields.Nested(Place, required=True)
    places = fields.List(fields.Nested(Place))


class CrewUpdate(own.PartialSchema, Crew):
    pass


class PlaceUpdate(own.PartialSchema, Place):
    pass


class CrewMove(own.PartialSchema):
    place = fields.Nested(PlaceUpdate)
    other = fields.Nested(Place(partial=True))


@pytest.mark.parametrize(
    "changes, loc",
    [({"place": {"city": "a"}}, ["place"]), ({"places": [{"city": "a"}]}, ["places", 0])],
    ids=["object", "list"],
)
def test_an_update_replaces_nested_objects_by_whole_ones(
    app: Flask, changes: dict[str, Any], loc: list[str | int]
) -> None:
    app.add_url_rule("/crews", view_func=operation(body=CrewUpdate)(lambda changes: changes), methods=["PATCH"])

    client = app.test_client()
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]

    assert client.patch("/crews", json={}).json == {}
    [found] = client.patch("/crews", json=changes).get_json()["detail"]
    assert found == {"type": "missing", "loc": ["body", *loc, "street"], "msg": "Field required"}
    assert "required" not in schemas["CrewUpdate"]
    assert schemas["Place"]["required"] == ["city", "street"]


def test_a_nested_schema_of_changes_is_partial_too(app: Flask) -> None:
    app.add_url_rule("/crews", view_func=operation(body=CrewMove)(lambda changes: changes), methods=["PATCH"])

    client = app.test_client()

    for name in ("place", "other"):
        assert client.patch("/crews", json={name: {"city": "a"}}).json == {name: {"city": "a"}}
    assert "required" not in client.get("/openapi.json").get_json()["components"]["schemas"]["PlaceUpdate"]


class Camel(own.BaseSchema):
    """Names in camel case, as marshmallow's documentation has it."""

    def on_bind_field(self, field_name: str, field_obj: Any) -> None:
        first, *rest = field_name.split("_")
        field_obj.data_key = first + "".join(map(str.title, rest))


class Span(Camel):
    first_day = own.Integer(required=True, metadata={"default": 1})
    last_day = own.Integer(required=True)

    @validates_schema
    def check(self, data: dict[str, Any], partial: Any = None, **kwargs: Any) -> None:
        if not partial and data["first_day"] > data["last_day"]:
            raise ValidationError("Ends before it starts.")


class SpanUpdate(own.PartialSchema, Span):
    pass


def test_a_schema_of_changes_keeps_the_hooks_of_its_base(app: Flask) -> None:
    app.add_url_rule("/spans", view_func=operation(body=SpanUpdate)(lambda changes: changes), methods=["PATCH"])

    client = app.test_client()
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]

    assert client.patch("/spans", json={"firstDay": 2}).json == {"first_day": 2}
    assert "default" not in schemas["SpanUpdate"]["properties"]["firstDay"]
    with pytest.raises(ValidationError, match="Ends before it starts."):
        SpanUpdate(partial=False).load({"firstDay": 2, "lastDay": 1})


class Translated:
    """A lazy translation, like Flask-Babel's."""

    def __str__(self) -> str:
        return "Stadt fehlt"


# The second is from marshmallow's quickstart.
@pytest.mark.parametrize(
    "message, msgs",
    [
        (Translated(), ["Value error, Stadt fehlt"]),
        ({"message": "City required", "code": 400}, ["Value error, City required", "Value error, 400"]),
    ],
    ids=["lazy", "dict"],
)
def test_any_error_message_of_marshmallow_is_reported(app: Flask, message: Any, msgs: list[str]) -> None:
    class Visit(own.BaseSchema):
        city = own.String(required=True, error_messages={"required": message})

    app.add_url_rule("/visits", view_func=operation(body=Visit)(lambda visit: visit), methods=["POST"])

    response = app.test_client().post("/visits", json={})

    assert response.status_code == 422
    assert [(each["loc"][:2], each["msg"]) for each in response.get_json()["detail"]] == [
        (["body", "city"], msg) for msg in msgs
    ]


def test_schema_that_nests_itself_rejects_a_body_that_is_nested_too_deep(app: Flask) -> None:
    class Tree(own.BaseSchema):
        branches = fields.List(fields.Nested(lambda: Tree()))

    app.add_url_rule("/trees", view_func=operation(body=Tree, response=Tree)(lambda tree: tree), methods=["POST"])

    deep = b'{"branches":[' * 200 + b"]}" * 200
    response = app.test_client().post("/trees", data=deep, content_type="application/json")
    assert (response.status_code, response.json) == (400, {"detail": "There was an error parsing the body"})


def test_hook_of_a_query_that_recurses_is_a_bug(app: Flask) -> None:
    class Loop(own.BaseSchema):
        @validates_schema
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            raise RecursionError

    app.add_url_rule("/loop", view_func=operation(query=Loop)(lambda query: query))

    with pytest.raises(RecursionError):
        app.test_client().get("/loop")


def test_a_field_may_be_called_msg(app: Flask) -> None:
    class Message(own.BaseSchema):
        msg = own.String()

        @validates_schema
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            raise ValidationError({"msg": "bad"})

    app.add_url_rule("/messages", view_func=operation(query=Message)(lambda message: message))

    [found] = app.test_client().get("/messages").get_json()["detail"]
    assert found == {"type": "value_error", "loc": ["query", "msg"], "msg": "Value error, bad"}


def test_several_errors_of_one_field_are_reported_one_by_one(app: Flask) -> None:
    class League(own.BaseSchema):
        name = own.String(required=True)

        @validates_schema(skip_on_field_errors=False)
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            raise ValidationError({"name": [own.error("value_error", "one")]})

        @validates_schema(skip_on_field_errors=False)
        def check_again(self, data: dict[str, Any], **kwargs: Any) -> None:
            raise ValidationError("two", "name")

    app.add_url_rule("/leagues", view_func=operation(body=League)(lambda league: league), methods=["POST"])

    for name, first in (("a", []), (1, ["Input should be a valid string"])):
        detail = app.test_client().post("/leagues", json={"name": name}).get_json()["detail"]
        assert [each["msg"] for each in detail] == [*first, "Value error, one", "Value error, two"]
        assert {tuple(each["loc"]) for each in detail} == {("body", "name")}


def test_pythons_limit_of_digits_is_a_validation_error() -> None:
    code = (
        "from heroes.schemas import HeroPath\n"
        "try: HeroPath().load({'hero_id': '1' * 700})\n"
        "except Exception as error: print(error.messages['hero_id'][0]['type'])"
    )
    command = [sys.executable, "-X", "int_max_str_digits=640", "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "int_parsing_size\n"


def test_an_update_never_makes_null_of_a_missing_field() -> None:
    class Base(HeroBase):
        team_id = own.Integer(allow_none=True, load_default=None)

    class Update(Base, HeroUpdate):
        pass

    assert HeroUpdate().load({}) == {}
    assert Update().load({}) == {}
    assert Update().load({"team_id": None}) == {"team_id": None}


# --- Flask -----------------------------------------------------------------------------------------------------------


def test_jsonify_abort_and_async_views_work(app: Flask) -> None:
    @app.get("/jsonified")
    def jsonified() -> flask.Response:
        return flask.jsonify(ok=True)

    @app.get("/aborted")
    def aborted() -> NoReturn:
        flask.abort(409, "Not now")

    @app.get("/dumped")
    def dumped() -> str:
        return flask.json.dumps({"a": 1}, indent=2)

    client = app.test_client()
    assert client.get("/jsonified").json == {"ok": True}
    assert (client.get("/aborted").status_code, client.get("/aborted").json) == (409, {"detail": "Not now"})
    assert client.get("/dumped").text == '{\n  "a": 1\n}'


@pytest.mark.parametrize("status", [(), (404,)])
def test_abort_with_a_response_answers_with_it(app: Flask, status: tuple[int, ...]) -> None:
    @app.get("/aborted")
    def aborted() -> NoReturn:
        given = flask.Response("gone fishing", 418)
        flask.abort(*status or (given,), **({"response": given} if status else {}))

    response = app.test_client().get("/aborted")
    assert (response.status_code, response.text) == (418, "gone fishing")


def test_abort_with_any_detail_and_exceptions_with_a_description(app: Flask) -> None:
    class InsufficientStorage(HTTPException):
        code = 507
        description = "Not enough storage space."

    class Moved(NotFound):
        code = 410

    exceptions = {"storage": InsufficientStorage, "moved": Moved}

    @app.get("/aborted/<kind>")
    def aborted(kind: str) -> NoReturn:
        if kind in exceptions:
            raise exceptions[kind]
        flask.abort(422, {"numbers": {0: ["not valid"]}, "decimal": decimal.Decimal("1.1")}[kind])

    client = app.test_client()
    assert client.get("/aborted/storage").json == {"detail": "Not enough storage space."}
    assert client.get("/aborted/moved").json == {"detail": "Gone"}
    assert client.get("/aborted/numbers").json == {"detail": {"0": ["not valid"]}}
    assert client.get("/aborted/decimal").json == {"detail": "1.1"}


def test_error_handlers_of_the_developer_get_database_errors(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(409)
    def conflict(error: HTTPException) -> tuple[str, int]:
        return f"mine: {error.description}", 409

    @app.post("/twice")
    def twice() -> str:
        db.session.add_all([Hero(id=1, **HERO), Hero(id=1, **HERO)])
        db.session.commit()
        return "never"

    @app.errorhandler(503)
    def unavailable(error: HTTPException) -> tuple[str, int]:
        return "mine: later", 503

    @app.get("/exhausted")
    def exhausted() -> NoReturn:
        raise PoolTimeout

    response = client.post("/twice")
    assert (response.status_code, response.text) == (409, "mine: Already exists")
    assert client.get("/exhausted").text == "mine: later"


def test_the_app_s_json_provider_serializes(app: Flask) -> None:
    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(value: Any) -> Any:
            return list(value) if isinstance(value, set) else DefaultJSONProvider.default(value)

    app.json = Provider(app)
    app.add_url_rule("/own", view_func=operation()(lambda: {"set": {1}, "number": decimal.Decimal("1")}))

    assert app.test_client().get("/own").json == {"set": [1], "number": "1"}


def test_a_view_without_an_operation_reads_its_body_itself(app: Flask) -> None:
    @app.post("/limited/<int:limit>")
    def limited(limit: int) -> str:
        flask.request.max_content_length = limit
        return flask.request.stream.read().decode()

    large = app.config["MAX_CONTENT_LENGTH"] + 1
    client = app.test_client()
    assert client.post("/limited/10", data="ten bytes!").text == "ten bytes!"
    assert client.post("/limited/10", data="eleven byte").status_code == 413
    assert client.post(f"/limited/{large}", data=" " * large).status_code == 200


def test_a_view_with_an_operation_may_read_its_body_itself(app: Flask) -> None:
    @app.put("/photos/<int:limit>")
    @operation()
    def photo(limit: int) -> str:
        flask.request.max_content_length = limit
        return flask.request.stream.read().decode()

    client = app.test_client()
    assert client.put("/photos/10", data="ten bytes!").json == "ten bytes!"
    assert client.put("/photos/10", data="eleven byte").status_code == 413


@pytest.mark.parametrize("wrap", [lambda view: view, operation()], ids=["plain", "operation"])
def test_a_chunked_body_can_be_read_as_a_stream(app: Flask, wrap: Any) -> None:
    def photo(limit: int) -> list[int]:
        flask.request.max_content_length = limit
        return [len(part) for part in iter(lambda: flask.request.stream.read(4), b"")]

    app.add_url_rule("/photos/<int:limit>", view_func=wrap(photo), methods=["PUT"])

    def put(body: bytes) -> Any:
        return app.test_client().put("/photos/10", input_stream=BytesIO(body), environ_overrides=ENDLESS)

    assert put(b"ten bytes!").json == [4, 4, 2]
    assert put(b"eleven byte").status_code == 413


def test_a_limit_of_a_blueprint_applies_to_its_operations(app: Flask) -> None:
    blueprint = flask.Blueprint("small", __name__)
    blueprint.add_url_rule("/small", view_func=operation(body=HeroCreate)(lambda hero: hero), methods=["POST"])

    @blueprint.before_request
    def limit() -> None:
        flask.request.max_content_length = 10

    app.register_blueprint(blueprint)

    assert app.test_client().post("/small", json=HERO).status_code == 413


def test_a_decorator_may_read_the_body_before_its_operation(app: Flask) -> None:
    def uploads() -> str:
        return flask.request.stream.read().decode()

    app.add_url_rule("/uploads", view_func=wraps(operation(body=HeroCreate)(uploads))(uploads), methods=["POST"])

    assert app.test_client().post("/uploads", data="a,b", content_type="text/csv").text == "a,b"


def test_a_body_may_be_read_before_it_is_checked(app: Flask) -> None:
    @app.url_value_preprocessor
    def read(endpoint: str | None, values: dict[str, Any] | None) -> None:
        flask.g.body = flask.request.get_data()

    assert app.test_client().post("/heroes/", json=HERO).json == public()


def test_a_path_converter_may_have_empty_segments(app: Flask) -> None:
    app.add_url_rule("/files/<path:name>", view_func=lambda name: [name])

    assert app.test_client().get("/files/a//b").json == ["a//b"]
    assert app.test_client().get("/files//a").status_code == 404


def test_a_keyed_post_needs_no_operation(app: Flask) -> None:
    resource = Resource(Hero, HeroPublic, keys=IdempotencyKey)
    app.add_url_rule("/keyed", view_func=lambda: resource.create(dict(HERO), "key"), methods=["POST"])

    first, again = (app.test_client().post("/keyed") for _ in range(2))
    assert (first.json, again.json, again.headers["Idempotent-Replayed"]) == (public(), public(), "true")


def test_a_method_view_without_an_operation_reads_its_body_itself(app: Flask) -> None:
    class Uploads(flask.views.MethodView):
        def post(self) -> str:
            flask.request.max_content_length = 10
            return flask.request.stream.read().decode()

    app.add_url_rule("/uploads", view_func=Uploads.as_view("uploads"))

    client = app.test_client()
    assert client.post("/uploads", data="ten bytes!").text == "ten bytes!"
    assert client.post("/uploads", data="eleven byte").status_code == 413


class Lengths(flask.views.MethodView):
    """Views that answer with the length of the body."""

    @operation(body=HeroCreate)
    def put(self, hero: dict[str, Any]) -> list[int]:
        return [len(flask.request.get_data())]

    def post(self) -> list[int]:
        return [len(flask.request.get_data())]


# What gunicorn and Granian pass to the app, with three bytes of ten, and with more than the limit.
CUT = {"CONTENT_LENGTH": "10", "wsgi.input_terminated": True}
ENDLESS = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


@pytest.mark.parametrize("method, path", [("POST", "/plain"), ("POST", "/class"), ("PUT", "/class")])
@pytest.mark.parametrize("environ, length, status", [(CUT, 3, 400), (ENDLESS, 2**20 + 1, 413)])
def test_any_view_rejects_an_incomplete_body(
    app: Flask, method: str, path: str, environ: dict[str, Any], length: int, status: int
) -> None:
    app.add_url_rule("/plain", view_func=lambda: [len(flask.request.get_data())], methods=["POST"])
    app.add_url_rule("/class", view_func=Lengths.as_view("lengths"))
    given = environ | {"wsgi.input": BytesIO(b" " * length)}

    assert app.test_client().open(path, method=method, environ_overrides=given).status_code == status


def test_a_list_in_a_query_has_all_values(app: Flask) -> None:
    class Query(own.BaseSchema):
        tag = fields.List(own.String())
        one = own.String()

    app.add_url_rule("/tagged", view_func=operation(query=Query)(lambda query: query))

    assert app.test_client().get("/tagged?tag=a&tag=b&one=c&one=d").json == {"tag": ["a", "b"], "one": "d"}
    assert app.test_client().get("/tagged?tag=a").json == {"tag": ["a"]}


def test_validators_and_variables_of_a_url_are_documented(app: Flask) -> None:
    class Body(own.BaseSchema):
        rank = own.Integer(allow_none=True, validate=validate.Range(min=1, max=10))
        code = own.String(max_length=9, validate=validate.Regexp("^[a-z]+$"))
        kind = own.String(allow_none=True, validate=[validate.OneOf(["a", "b"]), validate.Length(min=1)])

    app.add_url_rule(
        "/req/<number>/<path:rest>",
        view_func=operation(body=Body)(lambda body, number, rest: [number, rest]),
        methods=["PUT"],
    )

    client = app.test_client()
    document = client.get("/openapi.json").get_json()
    properties = document["components"]["schemas"]["Body"]["properties"]
    described = {"type": "integer", "minimum": 1, "maximum": 10}
    assert properties["rank"] == {"title": "Rank", "anyOf": [described, {"type": "null"}]}
    assert properties["code"] == {"title": "Code", "type": "string", "maxLength": 9, "pattern": "^[a-z]+$"}
    # Outside of `anyOf` a list of values would leave out null for some generated clients.
    described = {"type": "string", "enum": ["a", "b"], "minLength": 1}
    assert properties["kind"] == {"title": "Kind", "anyOf": [described, {"type": "null"}]}
    variables = document["paths"]["/req/{number}/{rest}"]["put"]["parameters"]
    assert [(each["in"], each["name"], each["required"]) for each in variables] == [
        ("path", "number", True),
        ("path", "rest", True),
    ]
    assert client.put("/req/1/a/b", json={"rank": 1}).json == ["1", "a/b"]


@pytest.mark.parametrize("number", [1, 2**70])
def test_a_date_has_one_form_beside_any_number(app: Flask, number: int) -> None:
    content = {"at": datetime.datetime(2020, 1, 2, 3, 4, 5), "number": number}
    app.add_url_rule("/dated", view_func=operation()(lambda: content))

    assert app.test_client().get("/dated").json == content | {"at": "2020-01-02T03:04:05"}


def test_no_content_is_documented_without_content(app: Flask) -> None:
    app.add_url_rule("/gone", view_func=operation(status=204)(lambda: None), methods=["DELETE"])

    client = app.test_client()
    responses = client.get("/openapi.json").get_json()["paths"]["/gone"]["delete"]["responses"]
    assert responses["204"] == {"description": "Successful Response"}
    assert client.delete("/gone").data == b""


def test_async_views_work(app: Flask) -> None:
    @app.get("/plain")
    async def plain() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/described")
    @operation(response=HeroPublic)
    async def described() -> dict[str, Any]:
        return ROW

    assert app.test_client().get("/plain").json == {"ok": True}
    assert app.test_client().get("/described").json == ROW


def test_an_operation_returns_whatever_a_flask_view_returns(app: Flask) -> None:
    class Named(flask.views.MethodView):
        @operation(response=HeroPublic)
        def get(self, number: int) -> Any:
            return ROW | {"id": number}, 202, {"X-Own": "1"}

    class Dispatched(flask.views.View):
        @operation(response=HeroPublic)
        def dispatch_request(self) -> Any:
            return ROW

    @app.get("/<int:number>/answered")
    @operation(response=HeroPublic)
    def answered(number: int) -> Any:
        return flask.Response(f"{number}"), 203

    @app.get("/redirected")
    @operation(response=HeroPublic)
    def redirected() -> Any:
        return flask.redirect("/docs")

    @app.get("/own")
    @operation()
    def own_reason() -> Any:
        return {}, "404 Nope"

    @app.get("/exact")
    @operation()
    def exact() -> Any:
        return {"fee": decimal.Decimal("1.10"), "numbers": {1: "one"}}

    app.add_url_rule("/<int:number>/named", view_func=Named.as_view("named"))
    app.add_url_rule("/dispatched", view_func=Dispatched.as_view("dispatched"))
    client = app.test_client()
    named, given = client.get("/7/named"), client.get("/8/answered")
    assert (named.status_code, named.json, named.headers["X-Own"]) == (202, ROW | {"id": 7}, "1")
    paths = client.get("/openapi.json").get_json()["paths"]
    assert [set(paths[path]) for path in ("/{number}/named", "/dispatched")] == [{"get"}, {"get"}]
    assert client.get("/dispatched").json == ROW
    assert (given.status_code, given.text) == (203, "8")
    assert client.get("/redirected").headers["Location"] == "/docs"
    assert client.get("/own").status == "404 Nope"
    assert paths["/redirected"]["get"]["summary"] == ""
    assert client.get("/exact").json == {"fee": "1.10", "numbers": {"1": "one"}}


def test_required_headers_and_defaults_of_headers_work(app: Flask) -> None:
    class Required(own.BaseSchema):
        key = own.String(data_key="X-Key", required=True)

    class Default(own.BaseSchema):
        key = own.String(data_key="X-Key", load_default="none")

    class Either(own.BaseSchema):
        key = own.String(data_key="X-Key")

        @validates_schema
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            if not data:
                raise ValidationError("Needs a key.")

    for name, schema in (("required", Required), ("default", Default), ("either", Either)):
        app.add_url_rule(f"/{name}", name, operation(headers=schema)(lambda key: [key]))

    client = app.test_client()
    refused = client.get("/required")
    assert (refused.status_code, refused.get_json()["detail"][0]["loc"]) == (422, ["header", "x-key"])
    assert client.get("/required", headers={"X-Key": "a"}).json == ["a"]
    assert client.get("/default").json == ["none"]
    assert client.get("/either").status_code == 422


def test_a_rule_without_its_slash_keeps_its_defaults_and_redirect() -> None:
    app = Flask("paged")
    app.add_url_rule("/users/", "users", lambda page: [page], defaults={"page": 1})
    app.add_url_rule("/users/page/<int:page>", "page", lambda page: [page])
    app.add_url_rule("/moved/", "moved", lambda: ["not moved"], redirect_to="/users/")
    match_without_slash(app)

    client = app.test_client()
    paths = ("/users", "/users/", "/users/page/2")
    assert [client.get(path, follow_redirects=True).json for path in paths] == [[1], [1], [2]]
    assert client.get("/moved").headers["Location"] == client.get("/moved/").headers["Location"]


def test_a_rule_without_its_slash_keeps_its_subdomain() -> None:
    app = Flask("hosts", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.test"
    app.add_url_rule("/secret/", "secret", lambda: ["secret"], subdomain="admin")
    match_without_slash(app)

    client = app.test_client()
    for path in ("/secret", "/secret/"):
        assert client.get(path, base_url="http://admin.example.test").json == ["secret"]
        assert client.get(path, base_url="http://example.test").status_code == 404


def test_a_rule_without_its_slash_leaves_options_to_the_view() -> None:
    app = Flask("options")
    app.add_url_rule("/own/", "own", lambda: ["own"], methods=["GET", "OPTIONS"])
    app.add_url_rule("/automatic/", "automatic", lambda: ["never"])
    match_without_slash(app)

    client = app.test_client()
    for path in ("/own", "/own/"):
        assert client.options(path).json == ["own"]
    for path in ("/automatic", "/automatic/"):
        assert set(client.options(path).allow) == {"GET", "HEAD", "OPTIONS"}


def test_a_rule_that_only_builds_urls_is_not_matched_without_its_slash() -> None:
    app = Flask("building")
    app.add_url_rule("/elsewhere/", "elsewhere", build_only=True)
    match_without_slash(app)

    client = app.test_client()
    assert [client.get(path).status_code for path in ("/elsewhere", "/elsewhere/")] == [404, 404]


def test_a_title_in_the_metadata_is_documented(app: Flask) -> None:
    class Body(own.BaseSchema):
        name = own.String(metadata={"title": "Full name"})
        born = fields.Date(metadata={"title": "Date of birth"})

    app.add_url_rule("/titled", view_func=operation(body=Body)(lambda body: body), methods=["PUT"])

    properties = app.test_client().get("/openapi.json").get_json()["components"]["schemas"]["Body"]["properties"]
    assert [each["title"] for each in properties.values()] == ["Full name", "Date of birth"]


def test_a_rule_without_a_view_is_left_out_of_the_document(app: Flask) -> None:
    app.add_url_rule("/elsewhere", "elsewhere", build_only=True)
    app.add_url_rule("/moved", "moved", redirect_to="/heroes/")

    assert not {"/elsewhere", "/moved"} & set(app.test_client().get("/openapi.json").get_json()["paths"])


def test_an_operation_leaves_g_to_the_developer(app: Flask) -> None:
    @app.before_request
    def note() -> None:
        flask.g.operation = "mine"

    app.add_url_rule("/noted", view_func=operation()(lambda: flask.g.operation))

    assert app.test_client().get("/noted").json == "mine"


def test_a_view_with_several_methods_is_documented(app: Flask) -> None:
    @app.route("/both", methods=["GET", "PUT"])
    @operation(response=HeroPublic)
    def both() -> Any:
        """Do both.

        At length.
        """
        return ROW | {"secret_name": "s"}, {"X-Own": "1"}

    client = app.test_client()
    documented = client.get("/openapi.json").get_json()["paths"]["/both"]
    assert {documented[method]["operationId"] for method in ("get", "put")} == {"both_both_get", "both_both_put"}
    assert (documented["get"]["summary"], documented["get"]["description"]) == ("Do both.", "At length.")
    assert (client.put("/both").json, client.put("/both").headers["X-Own"]) == (ROW, "1")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (lambda: {"json": {"a": 1}}, lambda: flask.request.get_json()),
        (lambda: {"data": b'{"a": 1}'}, lambda: flask.json.loads(flask.request.data)),
        (lambda: {"data": {"a": "1"}}, lambda: {"a": int(flask.request.form["a"])}),
        (lambda: {"data": {"a": (BytesIO(b"1"), "a.txt")}}, lambda: {"a": int(flask.request.files["a"].read())}),
    ],
    ids=["json", "data", "form", "files"],
)
def test_a_view_reads_the_body_as_in_any_flask_app(app: Flask, sent: Any, read: Any) -> None:
    app.add_url_rule("/read", view_func=lambda: read(), methods=["POST"])

    assert app.test_client().post("/read", **sent()).json == {"a": 1}


# --- SQLAlchemy's errors ---------------------------------------------------------------------------------------------


def execute(statement: str) -> str:
    """Execute a statement; a view."""
    db.session.execute(db.text(statement))
    return "done"


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("INSERT INTO hero (id, name, secret_name) VALUES (1, 'sentinel', 's')", "Already exists"),
        ("INSERT INTO hero (id, name, secret_name) VALUES (2, NULL, 'sentinel')", "Conflict"),
    ],
)
def test_a_violated_constraint_is_a_409(app: Flask, client: FlaskClient, statement: str, detail: str) -> None:
    app.add_url_rule("/fail", "fail", partial(execute, statement))
    client.post("/heroes/", json=HERO)

    response = client.get("/fail")
    assert (response.status_code, response.json) == (409, {"detail": detail})
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_damaged_table_is_503(app: Flask, client: FlaskClient) -> None:
    raising = "DO $$ BEGIN RAISE 'invalid page' USING ERRCODE = 'XX001'; END $$"
    app.add_url_rule("/fail", "fail", partial(execute, raising))

    response = client.get("/fail")
    assert (response.status_code, response.json) == (503, {"detail": "Service Unavailable"})


def test_a_foreign_key_that_is_violated_says_so(app: Flask, client: FlaskClient, query: Query) -> None:
    query("CREATE TABLE sidekick (hero_id BIGINT NOT NULL REFERENCES hero (id))")
    try:
        app.add_url_rule("/sidekicks", "sidekicks", partial(execute, "INSERT INTO sidekick VALUES (99)"))
        client.post("/heroes/", json=HERO)
        query("INSERT INTO sidekick VALUES (1)")

        used, unknown = client.delete("/heroes/1"), client.get("/sidekicks")
    finally:
        query("DROP TABLE sidekick")
    assert (used.status_code, used.json) == (409, {"detail": "Still in use"})
    assert (unknown.status_code, unknown.json) == (409, {"detail": "Refers to something that does not exist"})


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_bug_is_a_500_whose_log_quotes_no_value(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for path, statement in (("fail", "SELECT CAST('sentinel' AS integer)"), ("missing", "SELECT missing()")):
        app.add_url_rule(f"/{path}", path, partial(execute, statement))

    assert (client.get("/fail").status_code, client.get("/missing").status_code) == (500, 500)
    assert client.get("/fail").json == {"detail": "Internal Server Error"}
    assert "function missing() does not exist" in caplog.text
    assert "in dispatch_request" in caplog.text
    assert "22P02" in caplog.text
    assert "sentinel" not in caplog.text.replace("CAST('sentinel'", "")
    # What an error tracker gets: an exception with its traceback, and no chained one.
    exceptions = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert len(exceptions) == 3
    for exception in exceptions:
        assert exception is not None
        assert (exception.__cause__, exception.__context__) == (None, None)
        assert exception.__traceback__ is not None


@pytest.mark.parametrize("statement", ["SELEC 1", "SELECT nothing(1)", "SELECT 1 FROM hero GROUP BY count(*)"])
def test_a_mistake_in_a_statement_is_a_500(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    """SQLite has one code for these, for a missing table and for a missing column."""
    found: list[Any] = []

    @app.errorhandler(InternalServerError)
    def collect(error: InternalServerError) -> tuple[str, int]:
        found.append(error.original_exception)
        return "mine", 500

    app.add_url_rule("/fail", "fail", partial(execute, statement))

    assert client.get("/fail").status_code == 500
    assert "in dispatch_request" in caplog.text
    assert [isinstance(each, DBAPIError) for each in found] == [True]


@pytest.mark.parametrize(
    "statement", ["SELECT 1 FROM absent", "SELECT absent FROM hero", "INSERT INTO hero (x) VALUES (1)"]
)
def test_a_missing_table_or_column_is_a_503(app: Flask, client: FlaskClient, statement: str) -> None:
    app.add_url_rule("/fail", "fail", partial(execute, statement))

    assert client.get("/fail").status_code == 503


def test_a_model_of_flask_sqlalchemy_gets_the_name_of_its_table() -> None:
    class SideKick(db.Model):  # type: ignore[name-defined, misc]
        id: Mapped[int] = mapped_column(primary_key=True)

    assert SideKick.__tablename__ == "side_kick"
    db.metadata.remove(db.metadata.tables["side_kick"])


# --- The project's own rule ------------------------------------------------------------------------------------------


def test_no_library_internals_are_used() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.internals"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("options", [None, {}, {"poolclass": NullPool}, {"poolclass": QueuePool, "pool_size": 1}])
def test_engine_options_may_name_another_pool(database_url: str, options: dict[str, Any] | None) -> None:
    app = create_app({"SQLALCHEMY_DATABASE_URI": database_url, "SQLALCHEMY_ENGINE_OPTIONS": options})

    assert app.test_client().post("/heroes/", json=HERO).status_code == 200
    with app.app_context():
        assert isinstance(db.engine.pool, (options or {}).get("poolclass", QueuePool))
        db.engine.dispose()


def test_a_value_without_a_column_is_not_dropped_silently(app: Flask, client: FlaskClient, query: Query) -> None:
    class Create(HeroCreate):
        motto = own.String()

    resource = Resource(Hero, HeroPublic, keys=IdempotencyKey)
    app.add_url_rule("/mottos", view_func=operation(body=Create)(resource.create), methods=["POST"])

    with pytest.raises(TypeError, match="hero has no column motto"):
        client.post("/mottos", json=HERO | {"motto": "m"})
    assert query("SELECT count(*) FROM hero") == [(0,)]


class Public(HeroPublic):
    """A response schema that uses what marshmallow has."""

    name = own.String(required=True, data_key="fullName")
    initial = fields.Function(lambda row: row["name"][0])

    @post_dump
    def mark(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return data | {"hook": True}


def test_a_list_and_a_row_are_dumped_alike(app: Flask) -> None:
    resource = Resource(Hero, Public, keys=IdempotencyKey)
    page = operation(query=HeroQuery, response=Public(many=True))(lambda query: resource.page(query))
    row = operation(path=HeroPath, response=Public)(lambda hero_id: resource.read(hero_id))
    app.add_url_rule("/public/", "page", page)
    app.add_url_rule("/public/<hero_id>", "row", row)
    client = app.test_client()
    client.post("/heroes/", json=HERO)

    expected = public() | {"fullName": HERO["name"], "initial": HERO["name"][0], "hook": True}
    del expected["name"]
    assert client.get("/public/1").json == expected
    assert client.get("/public/").json == [expected]


def test_a_request_context_needs_no_wsgi_server(app: Flask) -> None:
    with app.test_request_context("/heroes/"):
        assert app.full_dispatch_request().status_code == 200
