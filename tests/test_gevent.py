"""gunicorn's gevent worker on SQLite: it serves, also while writers of several processes wait for each other."""

import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.constants import HERO, Query, sqlite_only
from tests.servers import Server, wait_until

pytestmark = sqlite_only
GEVENT = {"GUNICORN_CMD_ARGS": "--worker-class gevent"}


def test_gevent_worker_loses_no_write_of_concurrent_clients(serve: Callable[..., Server], query: Query) -> None:
    server = serve(WEB_CONCURRENCY="2", **GEVENT)

    def create(client: int) -> set[int]:
        with server.client() as connection:
            return {
                connection.send(
                    "POST", "/heroes/", HERO, {"Idempotency-Key": f"{client}-{number}"} if number % 2 else {}
                ).status
                for number in range(40)
            }

    with ThreadPoolExecutor(6) as clients:
        assert set().union(*clients.map(create, range(6))) == {200}
    assert query("SELECT count(*) FROM hero") == [(6 * 40,)]
    assert server.stop() == 0


def test_gevent_worker_reads_while_a_write_waits(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(DATABASE_TIMEOUT="2", **GEVENT)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with ThreadPoolExecutor(1) as writer:
            write = writer.submit(lambda: server.client(keep_alive=False).send("POST", "/heroes/", HERO).status)
            wait_until(lambda: server.accepted() == 1)
            started = time.monotonic()
            assert server.client(keep_alive=False).send("GET", "/heroes/").status == 200
            assert time.monotonic() - started < 1
            assert write.result() == 503
    finally:
        os.close(descriptor)
    assert server.client(keep_alive=False).send("POST", "/heroes/", HERO).status == 200
