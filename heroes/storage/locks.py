"""Waiting with a timeout: for a blocking call, and for the writer lock of a SQLite file."""

import fcntl
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

from flask import current_app
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a daemon thread of its own. Threads of a pool would delay the exit, and not survive a fork.

    Raises PoolTimeout if the system allows no more threads: like a full pool, that is temporary.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        raise PoolTimeout("no thread for a background call") from error
    return future


@contextmanager
def hold_writer_lock(directory: str, threads: threading.Lock, timeout: float) -> Iterator[None]:
    """Serialize writers to the SQLite files in a directory across threads and processes.

    SQLite has one writer at a time. The others sleep and try again, some for seconds; flock() wakes them in order. The
    lock is on the directory: closing any descriptor of the database file would drop SQLite's own locks on it
    (https://sqlite.org/howtocorrupt.html, 2.2). The kernel releases it if the process dies.

    threads: lets only one thread of this process at a time wait for flock(). timeout: seconds.

    Raises PoolTimeout, which gets the same response as an exhausted pool, and OperationalError if locking fails.
    """
    deadline = time.monotonic() + timeout
    if not threads.acquire(timeout=timeout):
        raise PoolTimeout("timeout while waiting for other writers")
    descriptor: int | None = None
    locked: Future[Any] | None = None

    def release(_: object = None) -> None:
        if descriptor is not None:
            # Closing would unlock, too, but gevent defers it.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            with suppress(OSError):
                os.close(descriptor)
        threads.release()

    try:
        try:
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # flock() has no timeout.
                locked = in_background(partial(lock_without_timeout, descriptor))
                if wait([locked], max(deadline - time.monotonic(), 0)).not_done:
                    raise PoolTimeout("timeout while waiting for writers of other processes") from None
                locked.result()
        except OSError as error:
            raise OperationalError("LOCK", None, sqlite3.OperationalError(error.strerror)) from error
        yield
    finally:
        if locked:
            # After a timeout keep `threads` locked until flock() returns: at most one thread and one descriptor wait.
            locked.add_done_callback(release)
        else:
            release()


def lock_without_timeout(descriptor: int) -> None:
    """Lock a directory, however long that takes."""
    monkey = sys.modules.get("gevent.monkey")
    while monkey and monkey.is_module_patched("threading"):  # pragma: no cover - in gunicorn's gevent worker only
        # All greenlets share one thread, which flock() would block.
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def writer_lock() -> AbstractContextManager[None]:
    """Hold the current app's writer lock. Raises PoolTimeout after DATABASE_TIMEOUT seconds."""
    hold: Callable[[float], AbstractContextManager[None]] = current_app.extensions["heroes.writer_lock"]
    return hold(current_app.config["DATABASE_TIMEOUT"])
