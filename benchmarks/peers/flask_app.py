"""Flask + Flask-SQLAlchemy + marshmallow, as one writes it first: load the object, change it, commit, dump it."""

import os
from typing import Any

from flask import Flask, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from marshmallow import EXCLUDE, Schema, fields
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers import durable  # noqa: F401


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db.init_app(app)


class Hero(db.Model):  # type: ignore[name-defined, misc]
    __tablename__ = "hero"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    age: Mapped[int | None] = mapped_column(index=True)
    secret_name: Mapped[str]


class HeroSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    id = fields.Integer(dump_only=True)
    name = fields.String(required=True)
    age = fields.Integer(allow_none=True, load_default=None)
    secret_name = fields.String(required=True, load_only=True)


class PageSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    offset = fields.Integer(load_default=0)
    limit = fields.Integer(load_default=100)


hero_schema = HeroSchema()
page_schema = PageSchema()


@app.errorhandler(404)
def not_found(error: Any) -> Any:
    return jsonify(detail="Hero not found"), 404


@app.post("/heroes/")
def create_hero() -> Any:
    hero = Hero(**hero_schema.load(request.get_json()))
    db.session.add(hero)
    db.session.commit()
    return jsonify(hero_schema.dump(hero))


@app.get("/heroes/")
def read_heroes() -> Any:
    page = page_schema.load(request.args)
    statement = db.select(Hero).order_by(Hero.id).offset(page["offset"]).limit(page["limit"])
    return jsonify(hero_schema.dump(db.session.scalars(statement), many=True))


@app.get("/heroes/<int:hero_id>")
def read_hero(hero_id: int) -> Any:
    return jsonify(hero_schema.dump(db.get_or_404(Hero, hero_id)))


@app.patch("/heroes/<int:hero_id>")
def update_hero(hero_id: int) -> Any:
    changes = hero_schema.load(request.get_json(), partial=True)
    hero = db.get_or_404(Hero, hero_id)
    for key, value in changes.items():
        setattr(hero, key, value)
    db.session.commit()
    return jsonify(hero_schema.dump(hero))


@app.delete("/heroes/<int:hero_id>")
def delete_hero(hero_id: int) -> Any:
    db.session.delete(db.get_or_404(Hero, hero_id))
    db.session.commit()
    return jsonify(ok=True)
