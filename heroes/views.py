"""The five operations of /heroes."""

from typing import Any

from flask import Blueprint, Response
from werkzeug.datastructures import ETags

from heroes.models import Hero, IdempotencyKey
from heroes.schemas import HeroCreate, HeroPath, HeroPublic, HeroQuery, HeroUpdate
from heroes.web.operation import operation
from heroes.web.parameters import ConditionHeaders, CreateHeaders, ListHeaders
from heroes.web.resource import Content, Page, Resource

blueprint = Blueprint("heroes", __name__, url_prefix="/heroes")
heroes = Resource(Hero, HeroPublic, keys=IdempotencyKey)


@blueprint.post("/")
@operation(body=HeroCreate, headers=CreateHeaders, response=HeroPublic)
def create_hero(hero: dict[str, Any], **key: str) -> Content | Response:
    """Create Hero"""
    return heroes.create(hero, **key)


@blueprint.get("/")
@operation(query=HeroQuery, headers=ListHeaders, response=HeroPublic(many=True))
def read_heroes(query: dict[str, Any], **prefer: str) -> Page:
    """Read Heroes"""
    return heroes.page(query, **prefer)


@blueprint.get("/<hero_id>")
@operation(path=HeroPath, headers=ConditionHeaders, response=HeroPublic, errors=heroes.errors)
def read_hero(hero_id: int, **conditions: ETags) -> Content | Response:
    """Read Hero"""
    return heroes.read(hero_id, **conditions)


@blueprint.patch("/<hero_id>")
@operation(path=HeroPath, body=HeroUpdate, headers=ConditionHeaders, response=HeroPublic, errors=heroes.errors)
def update_hero(changes: dict[str, Any], hero_id: int, **conditions: ETags) -> Content:
    """Update Hero"""
    return heroes.update(hero_id, changes, **conditions)


@blueprint.delete("/<hero_id>")
@operation(path=HeroPath, headers=ConditionHeaders, errors=heroes.errors)
def delete_hero(hero_id: int, **conditions: ETags) -> dict[str, bool]:
    """Delete Hero"""
    return heroes.delete(hero_id, **conditions)
