"""The WSGI entry point: `gunicorn wsgi:app`, `flask --app wsgi …`."""

import sys

from heroes import create_app
from heroes.config import ConfigError

try:
    app = create_app()
except ConfigError as error:
    # 3 is the code by which a gunicorn worker says that it can't boot: the master stops instead of trying again.
    print(f"heroes: {error}", file=sys.stderr)
    sys.exit(3)
