"""APIFlask + Flask-SQLAlchemy, in the manner of APIFlask's own examples: input and output schemas on each view."""

import os
from typing import Any

from apiflask import APIFlask, Schema, abort
from apiflask.fields import Boolean, Integer, String
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers import durable  # noqa: F401


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
app = APIFlask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db.init_app(app)


class Hero(db.Model):  # type: ignore[name-defined, misc]
    __tablename__ = "hero"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    age: Mapped[int | None] = mapped_column(index=True)
    secret_name: Mapped[str]


class HeroIn(Schema):
    name = String(required=True)
    age = Integer(allow_none=True, load_default=None)
    secret_name = String(required=True)


class HeroOut(Schema):
    id = Integer()
    name = String()
    age = Integer()


class PageQuery(Schema):
    offset = Integer(load_default=0)
    limit = Integer(load_default=100)


class Deleted(Schema):
    ok = Boolean()


@app.error_processor
def error_envelope(error: Any) -> Any:
    return {"detail": error.message}, error.status_code, error.headers


def get_hero(hero_id: int) -> Hero:
    hero = db.session.get(Hero, hero_id)
    if hero is None:
        abort(404, "Hero not found")
    return hero


@app.post("/heroes/")
@app.input(HeroIn)
@app.output(HeroOut)
def create_hero(json_data: dict[str, Any]) -> Hero:
    hero = Hero(**json_data)
    db.session.add(hero)
    db.session.commit()
    return hero


@app.get("/heroes/")
@app.input(PageQuery, location="query")
@app.output(HeroOut(many=True))
def read_heroes(query_data: dict[str, Any]) -> list[Hero]:
    statement = db.select(Hero).order_by(Hero.id).offset(query_data["offset"]).limit(query_data["limit"])
    return list(db.session.scalars(statement))


@app.get("/heroes/<int:hero_id>")
@app.output(HeroOut)
def read_hero(hero_id: int) -> Hero:
    return get_hero(hero_id)


@app.patch("/heroes/<int:hero_id>")
@app.input(HeroIn(partial=True))
@app.output(HeroOut)
def update_hero(hero_id: int, json_data: dict[str, Any]) -> Hero:
    hero = get_hero(hero_id)
    for key, value in json_data.items():
        setattr(hero, key, value)
    db.session.commit()
    return hero


@app.delete("/heroes/<int:hero_id>")
@app.output(Deleted)
def delete_hero(hero_id: int) -> dict[str, bool]:
    db.session.delete(get_hero(hero_id))
    db.session.commit()
    return {"ok": True}
