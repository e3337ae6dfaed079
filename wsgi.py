"""The WSGI entry point: `gunicorn wsgi:app`, `flask --app wsgi …`."""

import os
import sys
from logging.config import dictConfig

from heroes import create_app
from heroes.config import ConfigError, from_environment
from heroes.operations.logs import logging_config

try:
    settings = from_environment(os.environ)
    dictConfig(logging_config(settings["LOG_LEVEL"], settings["LOG_FORMAT"]))
    app = create_app()
except ConfigError as error:
    print(f"heroes: {error}", file=sys.stderr)
    # gunicorn stops if a worker exits with 3 (arbiter.Arbiter.WORKER_BOOT_ERROR); after any other code it tries again.
    sys.exit(3)
