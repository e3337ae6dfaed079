"""The API document is true: whatever schemathesis makes of it is answered as it says, on both databases."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Server

CONFIG = ROOT / "tests" / "schemathesis.toml"

pytestmark = pytest.mark.xdist_group("schemathesis")


def test_no_check_fails(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(ACCESS_LOG="off")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    run = subprocess.run(
        [*command, f"{server.url}/openapi.json"],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stdout
    assert "Tested: 5" in run.stdout
