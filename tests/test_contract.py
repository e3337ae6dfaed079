"""Every recorded exchange gets the answer of the tutorial, or of a deviation, and leaves the table so."""

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.contract.corpus import topics
from tests.contract.replay import Exchange, differences, recorded, through
from tests.contract.tables import Table, table_of
from tests.contract.wire import Answer, Connection, Request

EXCHANGES = recorded()
TOPICS = {topic: list(exchanges) for topic, exchanges in groupby(EXCHANGES, key=lambda exchange: exchange.topic)}
README = Path(__file__).parent.parent / "README.md"
SHOWN = 10  # differences, of one topic


@pytest.fixture
def table(database_url: str) -> Iterator[Table]:
    """The table that the service uses."""
    table = table_of(database_url)
    yield table
    table.close()


def tell(found: list[str]) -> str:
    """The first differences and how many there are."""
    return f"{len(found)} differences\n\n" + "\n\n".join(found[:SHOWN])


@pytest.mark.parametrize("topic", TOPICS)
def test_recorded_exchanges(topic: str, client: FlaskClient, table: Table) -> None:
    found = list(differences(TOPICS[topic], through(client), table))

    assert not found, tell(found)


def odd(exchange: Exchange) -> bool:
    """Whether a server may have an opinion of its own on the request, or the order of requests matters."""
    sent = bytes(exchange.request)
    return exchange.flow or exchange.race > 1 or not sent.isascii() or b"%" in sent


def test_recorded_exchanges_through_gunicorn(serve: Callable[..., Any], table: Table) -> None:
    server = serve()

    def send(request: Request) -> Answer:
        connection = Connection(server.port)
        try:
            return connection.send(request)
        finally:
            connection.close()

    sample = [exchange for exchange in EXCHANGES if odd(exchange) or exchange.line % 5 == 0]

    found = list(differences(sample, send, table))

    assert not found, tell(found)


def test_the_record_is_of_this_corpus() -> None:
    requests = [request for topic in topics() for request in topic.requests]

    assert [exchange.request for exchange in EXCHANGES] == requests
    assert len(requests) >= 600


def test_the_deviations_are_those_in_the_readme() -> None:
    [section] = re.findall(r"^#+ [^\n]*Deviations[^\n]*\n(.*?)(?=^#|\Z)", README.read_text(), re.DOTALL | re.MULTILINE)
    rows = {int(number) for number in re.findall(r"^\| *(\d+) *\|", section, re.MULTILINE)}

    assert set().union(*(exchange.deviations for exchange in EXCHANGES)) == rows
