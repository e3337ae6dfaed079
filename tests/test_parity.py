"""Requests that nobody wrote down get the answers of the tutorial, too: a bounded run of the differential fuzzing."""

import os

import pytest

from tests.contract.parity import fuzz
from tests.contract.wire import ORACLE

REQUESTS = 500


@pytest.mark.skipif(
    not ORACLE.exists() and "CI" not in os.environ, reason="needs the oracle's environment: make .venv-oracle"
)
def test_heroes_answers_like_the_oracle() -> None:
    pair, difference = fuzz(REQUESTS, number=1)

    assert not difference, difference
    assert pair.sent >= REQUESTS
