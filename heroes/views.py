"""The five operations of /heroes."""

import hashlib
import re
import time
from functools import cache
from typing import Any, cast
from urllib.parse import urlencode

import orjson
from flask import Response
from sqlalchemy import ColumnElement, Select, Table, Update, bindparam, delete, func, insert, select, text, update

from heroes.database import execute, transaction, write
from heroes.document import Blueprint
from heroes.errors import HeroChanged, ResourceNotFound, Unprocessable, located
from heroes.fields import fault
from heroes.http import Answer, current_request, load, read_query
from heroes.models import Hero, IdempotencyKey
from heroes.schemas import (
    ChangeHeaders,
    CreateHeaders,
    HeroCreate,
    HeroPath,
    HeroPublic,
    HeroQuery,
    HeroUpdate,
    ListHeaders,
    ReadHeaders,
)

CREATE_HEADERS = CreateHeaders()
VERSION = re.compile("[1-9][0-9]{0,17}")
# RFC 7240, 2: preferences by commas, each with parameters by semicolons.
COUNT = re.compile(r"(?:^|,)\s*count\s*=\s*\"?exact\"?\s*(?:[;,]|$)", re.IGNORECASE)
KEEP_KEYS = 24 * 60 * 60  # seconds that an Idempotency-Key is remembered

# Statements on the tables, not on the classes: they need no compilation by the ORM and no identity map.
HERO = cast(Table, Hero.__table__)
KEY = cast(Table, IdempotencyKey.__table__)

PUBLIC = [HERO.c[name] for name in HeroPublic().fields]
VERSIONED = [*PUBLIC, HERO.c.version]
THIS = HERO.c.id == bindparam("hero_id")
UNCHANGED = HERO.c.version.in_(bindparam("versions", expanding=True))

CREATE = insert(HERO).returning(*VERSIONED)
READ = select(*VERSIONED).where(THIS)
DELETE = delete(HERO).where(THIS).returning(HERO.c.id)
DELETE_UNCHANGED = DELETE.where(UNCHANGED)

FILTERS = {
    "name": HERO.c.name == bindparam("name"),
    "age": HERO.c.age == bindparam("age"),
    "min_age": HERO.c.age >= bindparam("min_age"),
    "max_age": HERO.c.age <= bindparam("max_age"),
    "after": HERO.c.id > bindparam("after"),
}
ORDERS: dict[str, list[ColumnElement[Any]]] = {
    "id": [HERO.c.id],
    "-id": [HERO.c.id.desc()],
    "name": [HERO.c.name, HERO.c.id],
    "-name": [HERO.c.name.desc(), HERO.c.id],
    "age": [HERO.c.age.nulls_last(), HERO.c.id],
    "-age": [HERO.c.age.desc().nulls_last(), HERO.c.id],
}
RANGES = {"min_age", "max_age"}
BY_SUM = {"id": HERO.c.id + 0, "-id": (HERO.c.id + 0).desc()}

FORGET_KEYS = delete(KEY).where(KEY.c.created_at < bindparam("before"))
# A key that another request is just claiming is waited for; one that is claimed already gives no row.
CLAIM_KEY = text(
    "INSERT INTO idempotency_key (key, fingerprint, created_at) VALUES (:key, :fingerprint, :created_at)"
    " ON CONFLICT DO NOTHING RETURNING key"
)
RECORD_ANSWER = update(KEY).where(KEY.c.key == bindparam("claimed")).values(answer=bindparam("answer"))
RECALL = select(KEY.c.fingerprint, KEY.c.answer).where(KEY.c.key == bindparam("key"))

blueprint = Blueprint("heroes", __name__, url_prefix="/heroes")


@cache
def selecting(filters: frozenset[str], sort: str) -> Select[Any]:
    """The SELECT of a page."""
    page = select(*PUBLIC).where(*(FILTERS[name] for name in sorted(filters))).order_by(*ORDERS[sort])
    if filters & RANGES and sort in BY_SUM:
        # A sum has no index: without it SQLite would walk all ids rather than the ages that are meant.
        page = page.order_by(None).order_by(BY_SUM[sort])
    return page.offset(bindparam("offset")).limit(bindparam("limit"))


@cache
def counting(filters: frozenset[str]) -> Select[Any]:
    """The SELECT that counts what the filters let through."""
    return select(func.count()).select_from(HERO).where(*(FILTERS[name] for name in sorted(filters)))


@cache
def updating(columns: frozenset[str], conditional: bool) -> Update:
    """The UPDATE that sets these columns."""
    values: dict[Any, Any] = {HERO.c[name]: bindparam(name) for name in sorted(columns)}
    values[HERO.c.version] = HERO.c.version + 1
    return update(HERO).where(THIS, *([UNCHANGED] if conditional else [])).values(values).returning(*VERSIONED)


def tagged(hero: Any, **headers: str) -> Answer:
    """A versioned row as a view's answer, with its ETag."""
    return hero, {"ETag": f'"{hero[-1]}"', **headers}


def allowed_versions() -> list[int] | None:
    """The versions that the request's If-Match allows; None where it allows any.

    Weak tags match nothing (RFC 9110, 13.1.1), and neither do those that are no version of ours.
    """
    request = current_request()
    if "HTTP_IF_MATCH" not in request.environ or request.if_match.star_tag:
        return None
    return [int(tag) for tag in request.if_match.as_set() if VERSION.fullmatch(tag)]


def unchangeable(hero_id: int) -> HeroChanged | ResourceNotFound:
    """Why a statement on one hero found no row: its version, or that it isn't there."""
    there = execute(READ, {"hero_id": hero_id}).one_or_none()
    return HeroChanged() if there else ResourceNotFound(HeroPath.not_found)


def create_once(key: str, hero: dict[str, Any]) -> Answer:
    """Creates a hero and records the answer under the key, or answers what is recorded there, in one transaction.

    Raises Unprocessable where the key was used for another hero.
    """
    fingerprint = hashlib.sha256(orjson.dumps(hero)).hexdigest()
    now = int(time.time())
    with transaction():
        # A write comes first: on SQLite the transaction is a writer's from its start.
        execute(FORGET_KEYS, {"before": now - KEEP_KEYS})
        if execute(CLAIM_KEY, {"key": key, "fingerprint": fingerprint, "created_at": now}).one_or_none():
            created = execute(CREATE, hero).one()
            execute(RECORD_ANSWER, {"claimed": key, "answer": list(created)})
            return tagged(created)
        recorded = execute(RECALL, {"key": key}).one()
    if recorded.fingerprint != fingerprint:
        raise Unprocessable([located(fault("value_error", "was used with another body"), "header", "idempotency-key")])
    return tagged(recorded.answer, **{"Idempotent-Replayed": "true"})


@blueprint.post("/")
@blueprint.arguments(HeroCreate())
@blueprint.arguments(CREATE_HEADERS, location="headers")
@blueprint.response(200, HeroPublic())
def create_hero(hero: dict[str, Any]) -> Answer:
    """Create Hero"""
    if "HTTP_IDEMPOTENCY_KEY" in current_request().environ:
        [headers] = load(("headers", CREATE_HEADERS))
        return create_once(headers["idempotency_key"], hero)
    return tagged(write(CREATE, hero))


@blueprint.get("/")
@blueprint.arguments(HeroQuery(), location="query")
@blueprint.arguments(ListHeaders(), location="headers")
@blueprint.response(200, HeroPublic(many=True))
def read_heroes(page: dict[str, Any]) -> Answer:
    """Read Heroes"""
    filters = frozenset(FILTERS.keys() & page)
    heroes = execute(selecting(filters, page["sort"]), page).all()
    answer: dict[str, str] = {}
    request = current_request()
    if heroes and len(heroes) == page["limit"]:
        step = f"after={heroes[-1].id}" if page["sort"] == "id" else f"offset={page['offset'] + page['limit']}"
        kept = {key: value for key, value in read_query(request).items() if key not in ("after", "offset")}
        answer["Link"] = f'<?{urlencode(kept)}{"&" if kept else ""}{step}>; rel="next"'
    if COUNT.search(request.environ.get("HTTP_PREFER", "")):
        answer["X-Total-Count"] = str(execute(counting(filters - {"after"}), page).scalar_one())
        answer["Preference-Applied"] = "count=exact"
    return heroes, answer


@blueprint.get("/<hero_id>")
@blueprint.arguments(HeroPath(), location="path")
@blueprint.arguments(ReadHeaders(), location="headers")
@blueprint.response(200, HeroPublic())
def read_hero(hero_id: int) -> Answer:
    """Read Hero"""
    hero = execute(READ, {"hero_id": hero_id}).one_or_none()
    if hero is None:
        raise ResourceNotFound(HeroPath.not_found)
    request = current_request()
    if "HTTP_IF_NONE_MATCH" in request.environ and request.if_none_match.contains_weak(str(hero.version)):
        return Response(status=304, headers={"ETag": f'"{hero.version}"'})
    return tagged(hero)


@blueprint.patch("/<hero_id>")
@blueprint.arguments(HeroUpdate())
@blueprint.arguments(HeroPath(), location="path")
@blueprint.arguments(ChangeHeaders(), location="headers")
@blueprint.response(200, HeroPublic())
def update_hero(changes: dict[str, Any], hero_id: int) -> Answer:
    """Update Hero"""
    allowed = allowed_versions()
    statement = updating(frozenset(changes), allowed is not None)
    hero = write(statement, changes | {"hero_id": hero_id, "versions": allowed})
    if hero is None:
        raise unchangeable(hero_id)
    return tagged(hero)


@blueprint.delete("/<hero_id>")
@blueprint.arguments(HeroPath(), location="path")
@blueprint.arguments(ChangeHeaders(), location="headers")
@blueprint.response(200)
def delete_hero(hero_id: int) -> Answer:
    """Delete Hero"""
    allowed = allowed_versions()
    statement = DELETE if allowed is None else DELETE_UNCHANGED
    if write(statement, {"hero_id": hero_id, "versions": allowed}) is None:
        raise unchangeable(hero_id)
    return {"ok": True}, {}
