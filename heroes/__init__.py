"""heroes: the FastAPI "SQL (Relational) Databases" tutorial as a Flask service."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from heroes import commands, models, schemas, views
from heroes.config import VERSION as __version__
from heroes.config import from_config
from heroes.operations import access_log, health, metrics, security
from heroes.storage import engine
from heroes.web import errors, openapi, requests

__all__ = ["__version__", "create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the service as a Flask application.

    config: Flask settings that override the environment's, e.g. {"SQLALCHEMY_DATABASE_URI": "sqlite://"}.
    Raises heroes.config.ConfigError if a setting can't be used.
    """
    app = Flask(__name__)
    app.config.from_mapping(config)
    app.config.from_mapping(from_config(config or {}, os.environ))
    # before_request functions run in this order: a request is counted, then its body and Host are checked, then its
    # access token. WSGI middleware runs before all of them; what is added last runs first.
    engine.init_app(app)
    metrics.init_app(app)
    requests.init_app(app)
    errors.init_app(app)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(openapi.blueprint)
    requests.match_without_slash(app)
    app.cli.add_command(commands.resource_commands("heroes", models.Hero, schemas.HeroCreate, schemas.HeroPublic))
    # after_request functions run in reverse order: CORS headers are added, then the request is logged and counted.
    access_log.init_app(app)
    security.init_app(app)
    return app
