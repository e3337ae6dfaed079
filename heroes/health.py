"""Whether the process lives, and whether it can serve."""

from flask import Blueprint
from sqlalchemy.exc import SQLAlchemyError

from heroes.database import is_behind
from heroes.extensions import db

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> dict[str, str]:
    """The process answers; the database isn't asked."""
    return {"status": "ok"}


@blueprint.get("/ready")
def ready() -> tuple[dict[str, str], int]:
    """200 when the database answers and has the schema, else 503 with a reason."""
    try:
        behind = is_behind(db.session.connection())
    except SQLAlchemyError:
        return {"detail": "Database unavailable"}, 503
    if behind:
        return {"detail": "Database schema is behind"}, 503
    return {"status": "ok"}, 200
