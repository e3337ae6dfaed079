"""The tables. A change here needs a migration in migrations/versions; a test compares the two."""

from typing import Any, cast

from sqlalchemy import JSON, Dialect, String, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column

from heroes.extensions import Base
from heroes.storage.columns import Int64, ResourceMixin, Text


class Hero(ResourceMixin, Base):
    """A hero. No response has its `secret_name`."""

    __tablename__ = "hero"

    name: Mapped[str] = mapped_column(Text, index=True)
    age: Mapped[int | None] = mapped_column(Int64, index=True)
    secret_name: Mapped[str] = mapped_column(String)


class RecordedAnswer(TypeDecorator[dict[str, Any]]):
    """The content of a response, and the version of its row. Release 1.0.0 stored a list of a hero's values."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> dict[str, Any] | None:
        if isinstance(value, list):
            *values, version = value
            return {"content": dict(zip(("name", "age", "id"), values, strict=True)), "version": version}
        return cast(dict[str, Any] | None, value)


class IdempotencyKey(Base):
    """A POST that was sent with an Idempotency-Key, and the row that it created."""

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(String, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String)  # SHA-256 of the values that were sent
    created_at: Mapped[int] = mapped_column(Int64, index=True)  # seconds since 1970
    answer: Mapped[dict[str, Any] | None] = mapped_column(RecordedAnswer)
    resource: Mapped[str] = mapped_column(String, server_default="hero")  # the name of the row's table
