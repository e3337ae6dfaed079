"""The tests and their tools.

Importing this package removes the service's settings from the environment, so that neither the tests nor the servers
that they start depend on the caller's.
"""

import os

from heroes.config import Settings

SETTINGS = {str(field.data_key or field.name) for field in Settings().fields.values()}
SERVERS = {"GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR"}
# PG… are libpq's own: PGHOST, PGPORT and so on.
PREFIXES = ("FLASK_", "GRANIAN_", "PG")

for name in list(os.environ):
    if name in SETTINGS | SERVERS or name.startswith(PREFIXES):
        del os.environ[name]
