"""The API document is correct: schemathesis gets the documented response to every request, on both databases."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.constants import ROOT
from tests.servers import Server

CONFIG = ROOT / "tests" / "schemathesis.toml"

pytestmark = pytest.mark.xdist_group("schemathesis")


# Most requests of the phase "coverage" are rejected before a statement.
PHASES = {"sqlite": "examples,coverage,fuzzing,stateful", "postgresql": "fuzzing,stateful"}


def test_schemathesis_finds_no_failure(serve: Callable[..., Server], dialect: str, tmp_path: Path) -> None:
    server = serve(ACCESS_LOG="off")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    run = subprocess.run(
        [*command, "--phases", PHASES[dialect], f"{server.url}/openapi.json"],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stdout
    paths = server.client(keep_alive=False).send("GET", "/openapi.json").json["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}\n" in run.stdout
