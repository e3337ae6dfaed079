"""gunicorn's gevent worker on SQLite: it serves, also while writers of several processes wait for each other."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.constants import HERO, ROOT, Query, sqlite_only
from tests.servers import Server, wait_until

GEVENT = {"GUNICORN_CMD_ARGS": "--worker-class gevent"}
GIVE_UP = """
from gevent import monkey
monkey.patch_all()
import fcntl, os, sys, threading
from heroes.storage.locks import PoolTimeout, hold_writer_lock

other, threads = os.open(sys.argv[1], os.O_RDONLY), threading.Lock()
fcntl.flock(other, fcntl.LOCK_EX)
try:
    with hold_writer_lock(sys.argv[1], threads, 0.01):
        raise AssertionError
except PoolTimeout:
    fcntl.flock(other, fcntl.LOCK_UN)
threads.acquire()  # when the attempt is over
fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


@sqlite_only
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


@sqlite_only
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


def test_attempt_that_was_given_up_leaves_the_lock_to_others(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", GIVE_UP, tmp_path], cwd=ROOT, check=True, timeout=30)
