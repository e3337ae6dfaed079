"""Falcon (WSGI) + SQLAlchemy: a resource class, a session a request, media in and out. Falcon brings no validation."""

import os
from typing import Any

import falcon
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.peers import durable  # noqa: F401

engine = create_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase):
    pass


class Hero(Base):
    __tablename__ = "hero"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    age: Mapped[int | None] = mapped_column(index=True)
    secret_name: Mapped[str]

    def public(self) -> dict[str, Any]:
        return {"name": self.name, "age": self.age, "id": self.id}


def get_hero(session: Session, hero_id: int) -> Hero:
    """Return a hero. Raises HTTPNotFound."""
    hero = session.get(Hero, hero_id)
    if hero is None:
        raise falcon.HTTPNotFound(title="Hero not found")
    return hero


class HeroesResource:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        media = req.get_media()
        with Session(engine) as session:
            hero = Hero(name=media["name"], age=media.get("age"), secret_name=media["secret_name"])
            session.add(hero)
            session.commit()
            resp.media = hero.public()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        offset = req.get_param_as_int("offset", default=0)
        limit = req.get_param_as_int("limit", default=100, max_value=100)
        with Session(engine) as session:
            heroes = session.scalars(select(Hero).order_by(Hero.id).offset(offset).limit(limit))
            resp.media = [hero.public() for hero in heroes]


class HeroResource:
    def on_get(self, req: falcon.Request, resp: falcon.Response, hero_id: int) -> None:
        with Session(engine) as session:
            resp.media = get_hero(session, hero_id).public()

    def on_patch(self, req: falcon.Request, resp: falcon.Response, hero_id: int) -> None:
        media = req.get_media()
        with Session(engine) as session:
            hero = get_hero(session, hero_id)
            for key in ("name", "age", "secret_name"):
                if key in media:
                    setattr(hero, key, media[key])
            session.commit()
            resp.media = hero.public()

    def on_delete(self, req: falcon.Request, resp: falcon.Response, hero_id: int) -> None:
        with Session(engine) as session:
            session.delete(get_hero(session, hero_id))
            session.commit()
        resp.media = {"ok": True}


def error_envelope(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    resp.media = {"detail": error.title}


app = falcon.App()
app.set_error_serializer(error_envelope)
app.add_route("/heroes/", HeroesResource())
app.add_route("/heroes/{hero_id:int}", HeroResource())
