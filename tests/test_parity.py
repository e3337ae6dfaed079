"""Random requests get the tutorial's responses, too: a bounded run of differential fuzzing."""

import os
import re
import subprocess
import sys

import pytest

from tests.constants import ROOT
from tests.contract.wire import ORACLE

REQUESTS = 500


@pytest.mark.skipif(
    not ORACLE.exists() and "CI" not in os.environ, reason="needs the oracle's environment: make .venv-oracle/done"
)
def test_random_requests_get_the_responses_of_the_oracle() -> None:
    command = [sys.executable, "-m", "tests.contract.parity", "--requests", str(REQUESTS), "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(r"^parity: ([0-9]+) requests, 0 differences \(seed 1\)$", done.stdout, re.MULTILINE)
    assert found and int(found[1]) >= REQUESTS, done.stdout
