"""/metrics for Prometheus, if METRICS is on."""

import atexit
import os
import platform
import struct
import tempfile
from contextlib import suppress
from functools import partial

from flask import Flask, Response, g
from sqlalchemy import event
from werkzeug.exceptions import ServiceUnavailable

from heroes.config import VERSION, ConfigError
from heroes.extensions import db
from heroes.operations.access_log import elapsed, method_and_route

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds


def make_directory(folder: str | None) -> None:
    """Make the directory of the metrics, if there is one. A cleaner of temporary files may have removed it."""
    if folder is not None:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def init_app(app: Flask) -> None:
    """Count requests and connections, and serve the counts of all workers, if METRICS is on. Raises ConfigError."""
    if not app.config["METRICS"]:
        return
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    except ModuleNotFoundError:
        raise ConfigError("METRICS: Needs pip install '.[metrics]'") from None

    if (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")) is not None:
        try:
            make_directory(folder)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ConfigError(f"PROMETHEUS_MULTIPROC_DIR: {error.strerror}") from None
        # A command creates the app, too. Its gauges would stay among those of the workers.
        atexit.register(lambda: mark_process_dead(os.getpid(), folder))
    own = CollectorRegistry()
    labels = ("method", "route", "status")
    requests = Counter("http_requests", "Responses.", labels, registry=own)
    seconds = Histogram("http_request_duration_seconds", "Time to the response.", labels, registry=own, buckets=BUCKETS)
    gauge = partial(Gauge, registry=own, multiprocess_mode="livesum")
    in_flight = gauge("http_requests_in_flight", "Requests in progress.", labels[:2])
    in_use = gauge("db_connections_in_use", "Database connections in use.")
    pool = gauge("db_connections_max", "Database connections that may be in use.")
    build = gauge("heroes_build_info", "Versions.", ("version", "python"), multiprocess_mode="livemax")

    @app.before_request
    def begin() -> None:
        g.heroes_in_flight = in_flight.labels(*method_and_route())
        g.heroes_in_flight.inc()

    @app.after_request
    def count(response: Response) -> Response:
        values = (*method_and_route(), response.status_code)
        # A worker makes their files at its first response. The directory may be gone by then.
        with suppress(FileNotFoundError):
            requests.labels(*values).inc()
            seconds.labels(*values).observe(elapsed())
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        if "heroes_in_flight" in g:
            g.pop("heroes_in_flight").dec()

    def announce() -> None:
        """Set the constant gauges. With --preload each worker repeats this after the fork."""
        make_directory(folder)
        pool.set(app.config["GUNICORN_THREADS"])
        build.labels(VERSION, platform.python_version()).set(1)

    announce()
    os.register_at_fork(after_in_child=announce)
    with app.app_context():
        # A checkout that fails because the database can't be reached ends with a checkin, too.
        event.listen(db.engine, "checkout", lambda _, record, __: in_use.inc(record.record_info.setdefault("used", 1)))
        event.listen(db.engine, "checkin", lambda _, record: in_use.dec(record.record_info.pop("used", 0)))

    @app.get("/metrics")
    def metrics() -> Response:
        """Serve the counts in Prometheus' text format: with PROMETHEUS_MULTIPROC_DIR those of all workers."""
        registry = own
        try:
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                registry = CollectorRegistry()
                MultiProcessCollector(registry)
            return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
        except (struct.error, FileNotFoundError, ValueError) as error:
            # A worker has just made a file, and not yet filled it; gunicorn has just removed one that stayed empty; or
            # something has removed the directory.
            app.logger.warning("metrics: %s", error)
            raise ServiceUnavailable(retry_after=1) from None
