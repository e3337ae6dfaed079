"""The Flask extensions, bound to an app by the factory, so that nobody has to import the factory."""

from typing import Any

import flask
import orjson
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase
from werkzeug.datastructures import Headers


class Model(DeclarativeBase):
    """The declarative base of every table."""


db = SQLAlchemy(model_class=Model, disable_autonaming=True)
migrate = Migrate(db=db)


class JSONResponse(flask.Response):
    """A response whose headers are complete: it has its length, and no Location that Werkzeug would have to mend."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        """The headers as they are."""
        return self.headers


class JSONProvider(flask.json.provider.JSONProvider):
    """JSON by orjson, compact like the tutorial's."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """The JSON text of an object."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """The object of a JSON text."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> flask.Response:
        """A response with the one argument as its JSON body."""
        return JSONResponse(orjson.dumps(*args), content_type="application/json")
