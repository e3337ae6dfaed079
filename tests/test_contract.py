"""Every recorded request gets the tutorial's response, or a deviation's, and leaves the same table."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.constants import ROOT, on_gunicorn, sqlite_only
from tests.contract.corpus import topics
from tests.contract.replay import Exchange, differences, recorded, through
from tests.contract.tables import Table, table_of
from tests.contract.wire import NOT_FOR_GRANIAN, Answer, Connection, Request
from tests.servers import Server

EXCHANGES = recorded()
TOPICS = {topic: list(exchanges) for topic, exchanges in groupby(EXCHANGES, key=lambda exchange: exchange.topic)}
SHOWN = 10  # differences, of one topic


@pytest.fixture
def table(database_url: str) -> Iterator[Table]:
    """The table of the service."""
    table = table_of(database_url)
    yield table
    table.close()


def tell(found: list[str]) -> str:
    """Return the first differences and how many there are."""
    return f"{len(found)} differences\n\n" + "\n\n".join(found[:SHOWN])


@pytest.mark.parametrize("topic", TOPICS)
def test_recorded_exchanges(topic: str, client: FlaskClient, table: Table) -> None:
    found = list(differences(TOPICS[topic], through(client), table))

    assert not found, tell(found)


def odd(exchange: Exchange) -> bool:
    """Return whether a server may treat the request in its own way, or the order of requests matters."""
    sent = bytes(exchange.request)
    return exchange.flow or exchange.race > 1 or not sent.isascii() or b"%" in sent


@sqlite_only
def test_recorded_exchanges_through_granian(serve: Callable[..., Any], table: Table) -> None:
    through_server(serve(server="granian"), table, lambda each: not NOT_FOR_GRANIAN.search(each.request.target))


@on_gunicorn
def test_recorded_exchanges_through_gunicorn(gunicorn: Server) -> None:
    with closing(table_of(gunicorn.database_url)) as table:
        through_server(gunicorn, table, lambda each: True)


def through_server(server: Server, table: Table, suits: Callable[[Exchange], bool]) -> None:
    """Send a sample of the exchanges that suit a server to it."""

    def send(request: Request) -> Answer:
        connection = Connection(server.port)
        try:
            return connection.send(request)
        finally:
            connection.close()

    sample = [each for each in EXCHANGES if (odd(each) or each.line % 5 == 0) and suits(each)]

    found = list(differences(sample, send, table))

    assert not found, tell(found)


def test_recorded_requests_are_the_corpus() -> None:
    requests = [request for topic in topics() for request in topic.requests]

    assert [exchange.request for exchange in EXCHANGES] == requests
    assert len(requests) >= 600


def test_the_deviations_are_those_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    [section] = re.findall(r"^#+ [^\n]*Deviations[^\n]*\n(.*?)(?=^#|\Z)", readme, re.DOTALL | re.MULTILINE)
    rows = {int(number) for number in re.findall(r"^\| *(\d+) *\|", section, re.MULTILINE)}

    assert set().union(*(exchange.deviations for exchange in EXCHANGES)) == rows
