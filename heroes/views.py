"""The five operations of /heroes."""

from functools import cache
from typing import Any

from sqlalchemy import Update, bindparam, delete, insert, select, update

from heroes.database import execute
from heroes.document import Blueprint
from heroes.errors import HeroNotFound
from heroes.extensions import db
from heroes.models import Hero
from heroes.schemas import HeroCreate, HeroPath, HeroPublic, HeroQuery, HeroUpdate

# Statements on the table, not on the class: they skip the ORM's compilation and its identity map.
HERO = Hero.__table__
PUBLIC = [HERO.c[name] for name in HeroPublic().fields]
THIS = HERO.c.id == bindparam("hero_id")

CREATE = insert(HERO).returning(*PUBLIC)
READ_PAGE = select(*PUBLIC).order_by(HERO.c.id).offset(bindparam("offset")).limit(bindparam("limit"))
READ = select(*PUBLIC).where(THIS)
DELETE = delete(HERO).where(THIS).returning(HERO.c.id)

blueprint = Blueprint("heroes", __name__, url_prefix="/heroes")


@cache
def updating(columns: frozenset[str]) -> Update:
    """The UPDATE that sets these columns; without one it sets the id to itself, and so still finds the hero."""
    values = {name: bindparam(name) for name in columns} or {"id": HERO.c.id}
    return update(HERO).where(THIS).values(values).returning(*PUBLIC)


@blueprint.post("/")
@blueprint.arguments(HeroCreate)
@blueprint.response(200, HeroPublic)
def create_hero(hero: dict[str, Any]) -> Any:
    """Create Hero"""
    return execute(CREATE, hero)


@blueprint.get("/")
@blueprint.arguments(HeroQuery, location="query")
@blueprint.response(200, HeroPublic(many=True))
def read_heroes(page: dict[str, int]) -> Any:
    """Read Heroes"""
    return db.session.execute(READ_PAGE, page).all()


@blueprint.get("/<hero_id>")
@blueprint.arguments(HeroPath, location="path", as_kwargs=True)
@blueprint.response(200, HeroPublic)
def read_hero(hero_id: int) -> Any:
    """Read Hero"""
    hero = db.session.execute(READ, {"hero_id": hero_id}).one_or_none()
    if hero is None:
        raise HeroNotFound
    return hero


@blueprint.patch("/<hero_id>")
@blueprint.arguments(HeroUpdate)
@blueprint.arguments(HeroPath, location="path", as_kwargs=True)
@blueprint.response(200, HeroPublic)
def update_hero(changes: dict[str, Any], hero_id: int) -> Any:
    """Update Hero"""
    hero = execute(updating(frozenset(changes)), changes | {"hero_id": hero_id})
    if hero is None:
        raise HeroNotFound
    return hero


@blueprint.delete("/<hero_id>")
@blueprint.arguments(HeroPath, location="path", as_kwargs=True)
@blueprint.response(200)
def delete_hero(hero_id: int) -> Any:
    """Delete Hero"""
    if execute(DELETE, {"hero_id": hero_id}) is None:
        raise HeroNotFound
    return {"ok": True}
