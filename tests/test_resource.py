"""A resource whose columns have names that the general code uses, too."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from heroes.extensions import db
from heroes.models import Hero, IdempotencyKey
from heroes.schemas import HeroPublic
from heroes.storage.columns import ResourceMixin
from heroes.web.fields import BaseSchema, Integer
from heroes.web.operation import operation
from heroes.web.parameters import ConditionHeaders, PageQuery, Sort
from heroes.web.resource import Resource
from tests.constants import HERO, public

COLUMNS = ("allowed", "excluded", "after_hours", "max_speed", "min_age", "this_id", "if_match", "if_none_match")


class Base(DeclarativeBase):
    """Apart from the tables of the service."""


class Car(ResourceMixin, Base):
    __tablename__ = "car"

    allowed: Mapped[int | None] = mapped_column()
    excluded: Mapped[int | None] = mapped_column()
    after_hours: Mapped[int | None] = mapped_column()
    max_speed: Mapped[int | None] = mapped_column()
    min_age: Mapped[int | None] = mapped_column()
    this_id: Mapped[int | None] = mapped_column()
    if_match: Mapped[int | None] = mapped_column()
    if_none_match: Mapped[int | None] = mapped_column()
    after: Mapped[int | None] = mapped_column()


class CarPublic(BaseSchema):
    id = Integer()
    allowed = Integer(allow_none=True)
    excluded = Integer(allow_none=True)
    after_hours = Integer(allow_none=True)
    max_speed = Integer(allow_none=True)
    min_age = Integer(allow_none=True)
    this_id = Integer(allow_none=True)
    if_match = Integer(allow_none=True)
    if_none_match = Integer(allow_none=True)


class CarPath(BaseSchema):
    car_id = Integer(required=True)


class CarQuery(PageQuery):
    allowed = Integer()
    excluded = Integer()
    after_hours = Integer()
    max_speed = Integer()
    min_age = Integer()
    this_id = Integer()
    if_match = Integer()
    if_none_match = Integer()
    sort = Sort("max_speed")


@pytest.fixture
def cars(app: Flask) -> Iterator[FlaskClient]:
    """A client of /cars/ with one car in the table, all of whose columns are 3."""
    resource = Resource(Car, CarPublic, keys=IdempotencyKey)

    @operation(query=CarQuery, response=CarPublic(many=True))
    def read_cars(query: dict[str, Any]) -> Any:
        return resource.page(query)

    @operation(path=CarPath, body=CarPublic, headers=ConditionHeaders, response=CarPublic)
    def update_car(changes: dict[str, Any], car_id: int, **conditions: Any) -> Any:
        return resource.update(car_id, changes, **conditions)

    app.add_url_rule("/cars/", view_func=read_cars)
    app.add_url_rule("/cars/<car_id>", view_func=update_car, methods=["PATCH"])
    with app.app_context():
        Base.metadata.create_all(db.engine)
        db.session.add(Car(**dict.fromkeys(COLUMNS, 3)))
        db.session.commit()
    yield app.test_client()
    with app.app_context():
        Base.metadata.drop_all(db.engine)


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-None-Match": '"1"'}])
@pytest.mark.parametrize("column", COLUMNS)
def test_update_changes_no_other_column(cars: FlaskClient, column: str, headers: dict[str, str]) -> None:
    response = cars.patch("/cars/1", json={column: 7}, headers=headers)

    expected = {"id": 1} | dict.fromkeys(COLUMNS, 3) | {column: 7}
    assert (response.status_code, response.json) == (200, expected)
    assert cars.get("/cars/").json == [expected]


@pytest.mark.parametrize("column", COLUMNS)
def test_filter_of_a_column_with_a_prefix_in_its_name_is_equality(cars: FlaskClient, column: str) -> None:
    found = [len(cars.get(f"/cars/?{column}={value}").get_json()) for value in (2, 3, 4)]

    assert found == [0, 1, 0]


def test_a_page_after_an_id_does_not_use_a_column_named_after(app: Flask, cars: FlaskClient) -> None:
    with app.app_context():
        db.session.add(Car())
        db.session.commit()

    link = cars.get("/cars/?limit=1").headers["Link"].partition(">")[0].removeprefix("<")
    assert [car["id"] for car in cars.get(f"/cars/{link}").get_json()] == [2]


def test_update_of_an_unknown_column_is_an_error(app: Flask, cars: FlaskClient) -> None:
    with app.app_context(), pytest.raises(TypeError, match="car has no column motto"):
        Resource(Car, CarPublic, keys=IdempotencyKey).update(1, {"motto": "?"})


def test_a_job_without_a_request_can_write(app: Flask) -> None:
    heroes = Resource(Hero, HeroPublic, keys=IdempotencyKey)
    values = HERO | {"age": None}
    with app.app_context():
        assert isinstance(created := heroes.create(values), tuple)
        assert [heroes.create(values, "k").json for _ in range(2)] == [public(id=2)] * 2  # type: ignore[union-attr]
        changed, _ = heroes.update(created[0]["id"], {"age": 5})
        assert heroes.delete(2) == {"ok": True}

    assert changed["age"] == 5
    assert app.test_client().get("/heroes/").json == [public(age=5)]


def test_change_through_the_session_gives_another_etag(app: Flask, client: FlaskClient) -> None:
    before = client.post("/heroes/", json=HERO).headers["ETag"]
    with app.app_context():
        db.session.get_one(Hero, 1).age = 30
        db.session.commit()

    assert client.get("/heroes/1", headers={"If-None-Match": before}).status_code == 200
