"""`flask` commands, as processes of their own."""

import os
import subprocess
import sys
from typing import Any

from tests.constants import ROOT

FLASK = [sys.executable, "-m", "flask", "--app", "wsgi"]


def run_flask(database_url: str, *args: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a `flask` command on a database to its end. `options` are those of subprocess.run; env is added to ours."""
    return subprocess.run([*FLASK, *args], **{"capture_output": True, "timeout": 60} | on(database_url, options))


def start_flask(database_url: str, *args: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a `flask` command on a database. `options` are those of subprocess.Popen; env is added to ours."""
    return subprocess.Popen([*FLASK, *args], **on(database_url, options))


def on(database_url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that run a command on a database, in the project's root by default."""
    environment = os.environ | {"DATABASE_URL": database_url} | options.get("env", {})
    return {"cwd": ROOT} | options | {"env": environment}
