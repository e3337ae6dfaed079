"""gunicorn's settings, read by `gunicorn wsgi:app` in this directory. It imports nothing of heroes: on HUP the master
forks workers that must load the new code."""

import json
import os
import sys

import gunicorn.util


def number(name: str, default: int, lowest: int = 1) -> int:
    """The environment's whole number `name`; ends gunicorn with one line where it is none, or below `lowest`."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < lowest:
        sys.exit(f"heroes: {name}: Must be a whole number from {lowest} up.")
    return int(text)


def write_error(sock, status_int, reason, mesg):
    """Writes what gunicorn itself refuses in the API's envelope; the reason is in the log."""
    body = json.dumps({"detail": reason})
    head = f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    gunicorn.util.write_nonblock(sock, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))


gunicorn.util.write_error = write_error

# Loopback: the API is open to whoever reaches it. A platform that hands out a PORT routes to all addresses.
bind = os.environ.get("BIND") or f"{'0.0.0.0' if 'PORT' in os.environ else '127.0.0.1'}:{number('PORT', 8000)}"
worker_class = "gthread"
workers = number("WEB_CONCURRENCY", min(2 * (os.cpu_count() or 1) + 1, 9))
threads = number("GUNICORN_THREADS", 4)
# Recycled now and then, so that a leak in any library stays small; apart, so that they don't all go at once.
max_requests = number("MAX_REQUESTS", 100_000, lowest=0)
max_requests_jitter = max_requests // 10
keepalive = 5  # seconds
timeout = 60  # seconds without a sign of life from a worker
graceful_timeout = 30  # seconds for the requests in flight when a worker stops
# The installable C parser lets a bare LF end a line: two servers could then read one request differently.
http_parser = "python"
control_socket_disable = True
# Before the app's first line so that a log pipe is never behind the facts.
accesslog = None if os.environ.get("ACCESS_LOG") == "off" else "-"
