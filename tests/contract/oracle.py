"""The tutorial's app, whose responses are the expected ones: `uvicorn --app-dir tests/contract oracle:app`.

It runs in an environment of its own (oracle-requirements.txt). SEED_DB names its SQLite file. DATABASE_URL, if it is
set, is the complete URL of another database.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlmodel import Field, Session, SQLModel, create_engine, select

DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:///{os.environ.get('SEED_DB', 'database.db')}"
# A session is opened in one thread of FastAPI's pool and used in another.
engine = create_engine(
    DATABASE_URL, connect_args={"check_same_thread": False} if DATABASE_URL.startswith("sqlite") else {}
)


class HeroBase(SQLModel):
    name: str = Field(index=True)
    age: int | None = Field(default=None, index=True)


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    secret_name: str


class HeroPublic(HeroBase):
    id: int


class HeroCreate(HeroBase):
    secret_name: str


class HeroUpdate(HeroBase):
    name: str | None = None  # type: ignore[assignment]
    age: int | None = None
    secret_name: str | None = None


def open_session() -> Iterator[Session]:
    """Yield a session that lasts as long as its request."""
    with Session(engine) as session:
        yield session


def saved(session: Session, hero: Hero) -> Hero:
    """Commit a hero, and return it as the database has it."""
    session.add(hero)
    session.commit()
    session.refresh(hero)
    return hero


def found(session: Session, hero_id: int) -> Hero:
    """Return the hero of an id. Raises HTTPException 404."""
    if hero := session.get(Hero, hero_id):
        return hero
    raise HTTPException(404, "Hero not found")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the table if it is missing."""
    SQLModel.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)
DB = Annotated[Session, Depends(open_session)]


@app.post("/heroes/", response_model=HeroPublic)
def create_hero(hero: HeroCreate, session: DB) -> Hero:
    return saved(session, Hero.model_validate(hero))


@app.get("/heroes/", response_model=list[HeroPublic])
def read_heroes(session: DB, offset: int = 0, limit: Annotated[int, Query(le=100)] = 100) -> Sequence[Hero]:
    return session.exec(select(Hero).offset(offset).limit(limit)).all()


# Each operation looks the hero up itself: as a dependency, a missing hero would be reported before a bad body.
@app.get("/heroes/{hero_id}", response_model=HeroPublic)
def read_hero(hero_id: int, session: DB) -> Hero:
    return found(session, hero_id)


@app.patch("/heroes/{hero_id}", response_model=HeroPublic)
def update_hero(hero_id: int, hero: HeroUpdate, session: DB) -> Hero:
    stored = found(session, hero_id)
    stored.sqlmodel_update(hero.model_dump(exclude_unset=True))
    return saved(session, stored)


@app.delete("/heroes/{hero_id}")
def delete_hero(hero_id: int, session: DB):  # type: ignore[no-untyped-def]  # A return type would alter the document.
    session.delete(found(session, hero_id))
    session.commit()
    return {"ok": True}
