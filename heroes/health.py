"""Whether the process lives, and whether it can serve."""

from flask import Blueprint
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from heroes.extensions import db

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> dict[str, str]:
    """The process answers; the database isn't asked."""
    return {"status": "ok"}


@blueprint.get("/ready")
def ready() -> tuple[dict[str, str], int]:
    """200 when the database answers, else 503 with a reason."""
    try:
        db.session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return {"detail": "Database unavailable"}, 503
    return {"status": "ok"}, 200
