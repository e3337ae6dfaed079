"""Blocking calls in the background, so that a caller can stop waiting."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a daemon thread of its own. Threads of a pool would delay the exit, and not survive a fork."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
