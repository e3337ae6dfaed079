"""Blocking calls in the background, so that a caller can stop waiting."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a daemon thread of its own. Threads of a pool would delay the exit, and not survive a fork.

    Raises PoolTimeout if the system allows no more threads: like other limits, that is over some time later.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    try:
        Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        raise PoolTimeout("no thread for a background call") from error
    return future
