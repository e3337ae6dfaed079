"""The Flask extensions, bound to an app by the factory, so that nobody has to import the factory."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import flask
import orjson
from flask.globals import app_ctx
from flask.json.provider import JSONProvider as FlaskJSONProvider
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import Connection
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Model(DeclarativeBase):
    """The declarative base of every table."""


class Session(FlaskSession):
    """The session of a request. In autocommit it has no transaction to keep, so it is one connection, borrowed from the
    pool when it is first used and until it is closed; whatever runs in the session runs there."""

    borrowed: Connection | None = None

    def get_bind(self, *args: Any, **kwargs: Any) -> Connection:
        """The connection."""
        if self.borrowed is None:
            self.borrowed = self._db.engine.connect()
        return self.borrowed

    connection = get_bind

    def close(self) -> None:
        """Gives the connection back, what is not committed undone."""
        if self.identity_map or self.in_transaction():
            super().close()
        if self.borrowed is not None:
            self.borrowed.close()
            self.borrowed = None


class Database(SQLAlchemy):
    """Flask-SQLAlchemy, with a shorter way to a context's session and from it: closed, it serves the next context
    (https://docs.sqlalchemy.org/en/20/orm/session_basics.html#closing). What is set on the session itself, as its
    `info` or `autoflush`, outlives the context: that belongs in the session's options."""

    def _make_session_factory(self, options: dict[str, Any]) -> Any:
        self.closed: list[Session] = []
        make = partial(Session, db=self, query_cls=self.Query, **options)

        def take() -> Session:
            try:
                return self.closed.pop()
            except IndexError:
                return make()

        return take

    def _teardown_session(self, exc: BaseException | None) -> None:
        session = self.session.registry.registry.pop(context(), None)
        if session is not None:
            session.close()
            self.closed.append(session)


# What a session belongs to.
context = app_ctx._get_current_object  # type: ignore[attr-defined]
db = Database(model_class=Model, disable_autonaming=True, session_options={"scopefunc": context})


class JSONResponse(flask.Response):
    """An answer in JSON, compact like the tutorial's: one piece, whose headers are complete from the start."""

    def __init__(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        body = orjson.dumps(content)
        super().__init__([body], status, content_type="application/json")
        self.headers.add("Content-Length", len(body))
        for name, value in (headers or {}).items():
            self.headers.add(name, value)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Sends it; there is nothing left for Werkzeug to mend."""
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else cast(list[bytes], self.response)


class JSONProvider(FlaskJSONProvider):
    """JSON by orjson."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The JSON text of an object."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """The object of a JSON text."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> flask.Response:
        """A response with the one argument as its JSON body."""
        return JSONResponse(*args)
