"""Probes: whether the process lives, and whether it can serve."""

from flask import Blueprint, current_app
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import ServiceUnavailable

from heroes.extensions import db
from heroes.storage.schema import is_behind
from heroes.storage.sqlite import check_files

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> dict[str, str]:
    """Return 200 without using the database."""
    return {"status": "ok"}


@blueprint.get("/ready")
def ready() -> dict[str, str]:
    """Return 200 if the database responds and has the schema, else 503 with a reason."""
    try:
        connection = db.session.connection()
        check_files(connection)
        if is_behind(connection):
            raise ServiceUnavailable("Database schema is behind", retry_after=1)
    except SQLAlchemyError as error:
        current_app.logger.error("not ready: %s", str(getattr(error, "orig", error)).partition("\n")[0])
        raise ServiceUnavailable("Database unavailable", retry_after=1) from None
    return {"status": "ok"}
