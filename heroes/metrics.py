"""/metrics for Prometheus, where METRICS asks for it."""

import fcntl
import os
import platform
from time import perf_counter

from flask import Flask, Response, g, request
from sqlalchemy import event

from heroes.config import VERSION, ConfigError
from heroes.extensions import db
from heroes.logs import STARTED, route

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
# Any other method is the client's own word, and there are endlessly many.
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"})
OTHER = "other"


def init_app(app: Flask) -> None:
    """Counts requests and connections, and serves the counts of all workers; does nothing without METRICS.

    Raises ConfigError where prometheus-client isn't installed.
    """
    if not app.config["METRICS"]:
        return
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector
    except ModuleNotFoundError:
        raise ConfigError("METRICS: Needs the extra: pip install heroes[metrics]") from None

    # Of this app, so that there can be two in one process.
    own = CollectorRegistry()
    labels = ("method", "route", "status")
    requests = Counter("http_requests", "Requests answered.", labels, registry=own)
    seconds = Histogram("http_request_duration_seconds", "Time to answer.", labels, registry=own, buckets=BUCKETS)
    in_flight = Gauge(
        "http_requests_in_flight", "Requests being answered.", labels[:2], registry=own, multiprocess_mode="livesum"
    )
    in_use = Gauge("db_connections_in_use", "Connections in use.", registry=own, multiprocess_mode="livesum")
    pool = Gauge("db_connections_max", "Connections that may be in use.", registry=own, multiprocess_mode="livesum")
    build = Gauge("heroes_build_info", "1.", ("version", "python"), registry=own, multiprocess_mode="livemax")
    pool.set(app.config["GUNICORN_THREADS"])
    build.labels(VERSION, platform.python_version()).set(1)

    @app.before_request
    def begin() -> None:
        g.endpoint = (request.method if request.method in METHODS else OTHER, route())
        g.in_flight = in_flight.labels(*g.endpoint)
        g.in_flight.inc()

    @app.after_request
    def count(response: Response) -> Response:
        values = (*g.endpoint, response.status_code)
        requests.labels(*values).inc()
        seconds.labels(*values).observe(perf_counter() - request.environ[STARTED])
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        g.in_flight.dec()

    with app.app_context():
        event.listen(db.engine, "checkout", lambda *_: in_use.inc())
        event.listen(db.engine, "checkin", lambda *_: in_use.dec())

    @app.get("/metrics")
    def metrics() -> Response:
        """The counts in Prometheus' text format: under gunicorn.conf.py those of all workers, else of this process."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return Response(generate_latest(own), content_type=CONTENT_TYPE_LATEST)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, folder)  # type: ignore[no-untyped-call]
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # A dead worker's counts are moved to another file under this lock: see gunicorn.conf.py.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return Response(generate_latest(everyone), content_type=CONTENT_TYPE_LATEST)
        finally:
            os.close(descriptor)
