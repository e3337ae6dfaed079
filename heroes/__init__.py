"""heroes: the FastAPI "SQL (Relational) Databases" tutorial as a Flask service."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from heroes.config import VERSION as __version__

__all__ = ["__version__", "create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """The service as a WSGI application.

    config: Flask settings that override what the environment says, e.g. {"SQLALCHEMY_DATABASE_URI": "sqlite://"}.
    Raises heroes.config.ConfigError where a setting can't be used.
    """
    from heroes import access, cli, database, document, errors, health, logs, metrics, views
    from heroes import config as settings
    from heroes.http import Service

    app = Service(__name__)
    app.config.from_mapping(settings.from_environment(os.environ))
    app.config.from_mapping(config)
    logs.init_app(app)
    database.init_app(app)
    metrics.init_app(app)
    errors.init_app(app)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(health.blueprint)
    document.init_app(app)
    app.cli.add_command(cli.commands)
    access.init_app(app)
    return app
