"""gunicorn's settings, read by `gunicorn wsgi:app` in this directory."""

import atexit
import os
import runpy
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# By path, not by import: on HUP this file is read again, and the workers that are forked then must load the new code.
checkout = Path(__file__).parent / "heroes"
installed = Path(str(getattr(find_spec("heroes"), "origin", ""))).parent
package = checkout if checkout.is_dir() else installed
app_config = runpy.run_path(f"{package}/config.py")
app_logs = runpy.run_path(f"{package}/operations/logs.py")

try:
    settings = app_config["from_environment"](os.environ)
except app_config["ConfigError"] as error:
    sys.exit(f"heroes: {error.message}")

# Loopback: the API is open to everybody who reaches it. A platform that routes to a port needs BIND=0.0.0.0:$PORT.
bind = settings["BIND"] or f"127.0.0.1:{settings['PORT']}"
worker_class = "gthread"
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
workers = settings["WEB_CONCURRENCY"] or min(2 * cores + 1, 9)
threads = settings["GUNICORN_THREADS"]
max_requests = settings["MAX_REQUESTS"]
max_requests_jitter = max_requests // 10  # so that workers are not all replaced at once
worker_connections = max(64, min(900, os.sysconf("SC_OPEN_MAX") - 100))  # some open files are left for the database
keepalive = 5  # seconds
timeout = 60  # seconds without a sign of life from a worker
graceful_timeout = 30  # seconds for the requests in flight when a worker stops
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # heartbeats and metrics need no disk
http_parser = "python"  # the C parser lets a bare LF end a line: two servers could read one request differently
control_socket_disable = True
limit_request_line = 8190  # bytes: an integer of 4,300 digits, the longest that is read, fits in a query
permit_unconventional_http_method = True  # the app responds with 405 and the allowed methods
logconfig_dict = app_logs["logging_config"](settings["LOG_LEVEL"], settings["LOG_FORMAT"])
logger_class = runpy.run_path(f"{package}/operations/gunicorn_logger.py")["Logger"]
# PROXY_HOPS alone decides which headers of a proxy are trusted. gunicorn trusts none of them.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""


def pre_request(worker: Any, req: Any) -> None:
    """Close the connection after a body that the app may not read to its end. (The default logs the request's path.)

    A path outside SCRIPT_NAME is replaced by one for which the app returns 404: gunicorn's own 500 would quote it.
    """
    prefix = settings["SCRIPT_NAME"] or ""
    if not f"{req.path}/".startswith(f"{prefix}/"):
        req.uri = req.path = f"{prefix}//-"
    headers = dict(req.headers)  # gunicorn has refused a Content-Length that is repeated or not a number
    if "TRANSFER-ENCODING" in headers or int(headers.get("CONTENT-LENGTH", 0)) > settings["MAX_CONTENT_LENGTH"]:
        req.force_close()


if settings["METRICS"] and find_spec("prometheus_client"):
    # The folder outlives a HUP, on which this file is read again. A master that USR2 starts makes its own.
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        try:
            folder = tempfile.mkdtemp("", "heroes-metrics-", os.environ.get("TMPDIR") or worker_tmp_dir)
        except OSError as error:
            sys.exit(f"heroes: TMPDIR: {error.strerror}")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        # Not in on_exit(), which --check-config does not call.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)

    from prometheus_client.multiprocess import mark_process_dead  # it looks for the folder when it is imported

    def child_exit(server: Any, worker: Any) -> None:
        """Drop the gauges of a worker that is gone, and the empty files of one that was killed while it made them."""
        mark_process_dead(worker.pid)
        for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"*_{worker.pid}.db"):
            if not file.stat().st_size:
                file.unlink()

    def when_ready(server: Any) -> None:
        """Drop the gauges of the master: with --preload it has the app, too, but serves nothing."""
        mark_process_dead(os.getpid())

    on_reload = when_ready

    def post_fork(server: Any, worker: Any) -> None:
        """Leave the removal of the folder to the master."""
        atexit.unregister(shutil.rmtree)
