"""Steady load on a server from several clients."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.client import Client
from tests.constants import HERO

WRITE_AND_READ = [("POST", "/heroes/", HERO), ("GET", "/heroes/", None)]


@dataclass
class Load:
    """The outcomes of requests, (method, status) or the error as text, and the seconds that each took."""

    outcomes: Counter[object] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@contextmanager
def load(
    port: int,
    requests: Sequence[tuple[str, str, object]] = WRITE_AND_READ,
    keep_alive: Sequence[bool] = (True, False, True, False),
    pause: float = 0.05,
) -> Iterator[Load]:
    """Send requests in turn during the block, from one client for each `keep_alive`; yield their Load.

    pause: seconds between a client's rounds.
    """
    result, stop, lock = Load(), threading.Event(), threading.Lock()

    def send(keep: bool) -> None:
        with Client(port, timeout=60, keep_alive=keep) as client:
            while not stop.wait(pause):
                for method, path, body in requests:
                    started = time.monotonic()
                    try:
                        outcome: object = (method, client.send(method, path, body).status)
                    except (OSError, http.client.HTTPException) as error:
                        outcome = repr(error)
                    with lock:
                        result.outcomes[outcome] += 1
                        result.seconds.append(time.monotonic() - started)

    threads = [threading.Thread(target=send, args=[keep]) for keep in keep_alive]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()
