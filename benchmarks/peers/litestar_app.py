"""Litestar + SQLAlchemy through Advanced Alchemy, its documented plugin: DTOs in and out, an injected async session."""

import os

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyDTO,
    SQLAlchemyPlugin,
)
from litestar import Litestar, Request, Response, delete, get, patch, post
from litestar.dto import DTOConfig, DTOData
from litestar.exceptions import HTTPException, NotFoundException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers import durable  # noqa: F401


class Base(DeclarativeBase):
    pass


class Hero(Base):
    __tablename__ = "hero"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    age: Mapped[int | None] = mapped_column(index=True, default=None)
    secret_name: Mapped[str]


class HeroPublic(SQLAlchemyDTO[Hero]):
    config = DTOConfig(exclude={"secret_name"})


class HeroCreate(SQLAlchemyDTO[Hero]):
    config = DTOConfig(exclude={"id"})


class HeroUpdate(SQLAlchemyDTO[Hero]):
    config = DTOConfig(exclude={"id"}, partial=True)


async def get_hero(db_session: AsyncSession, hero_id: int) -> Hero:
    """Return a hero. Raises NotFoundException."""
    hero = await db_session.get(Hero, hero_id)
    if hero is None:
        raise NotFoundException("Hero not found")
    return hero


@post("/heroes/", status_code=200, dto=HeroCreate, return_dto=HeroPublic)
async def create_hero(data: Hero, db_session: AsyncSession) -> Hero:
    db_session.add(data)
    await db_session.commit()
    return data


@get("/heroes/", return_dto=HeroPublic)
async def read_heroes(db_session: AsyncSession, offset: int = 0, limit: int = 100) -> list[Hero]:
    return list(await db_session.scalars(select(Hero).order_by(Hero.id).offset(offset).limit(limit)))


@get("/heroes/{hero_id:int}", return_dto=HeroPublic)
async def read_hero(hero_id: int, db_session: AsyncSession) -> Hero:
    return await get_hero(db_session, hero_id)


@patch("/heroes/{hero_id:int}", dto=HeroUpdate, return_dto=HeroPublic)
async def update_hero(hero_id: int, data: DTOData[Hero], db_session: AsyncSession) -> Hero:
    hero = data.update_instance(await get_hero(db_session, hero_id))
    await db_session.commit()
    return hero


@delete("/heroes/{hero_id:int}", status_code=200)
async def delete_hero(hero_id: int, db_session: AsyncSession) -> dict[str, bool]:
    await db_session.delete(await get_hero(db_session, hero_id))
    await db_session.commit()
    return {"ok": True}


def error_envelope(request: Request, error: HTTPException) -> Response:
    return Response({"detail": error.detail}, status_code=error.status_code)


config = SQLAlchemyAsyncConfig(
    connection_string=os.environ["DATABASE_URL"].replace("sqlite://", "sqlite+aiosqlite://"),
    session_config=AsyncSessionConfig(expire_on_commit=False),
)
app = Litestar(
    route_handlers=[create_hero, read_heroes, read_hero, update_hero, delete_hero],
    exception_handlers={HTTPException: error_envelope},
    plugins=[SQLAlchemyPlugin(config=config)],
)
