"""Probes: whether the process lives, and whether it can serve."""

from flask import Blueprint
from sqlalchemy.exc import SQLAlchemyError

from heroes.extensions import db
from heroes.storage.schema import is_behind
from heroes.storage.sqlite import check_files

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> dict[str, str]:
    """Return 200 without using the database."""
    return {"status": "ok"}


@blueprint.get("/ready")
def ready() -> tuple[dict[str, str], int]:
    """Return 200 if the database responds and has the schema, else 503 with a reason."""
    try:
        connection = db.session.connection()
        check_files(connection)
        behind = is_behind(connection)
    except SQLAlchemyError:
        return {"detail": "Database unavailable"}, 503
    if behind:
        return {"detail": "Database schema is behind"}, 503
    return {"status": "ok"}, 200
