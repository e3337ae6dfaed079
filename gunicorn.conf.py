"""gunicorn's settings, read by `gunicorn wsgi:app` in this directory. It imports nothing of heroes: on HUP the master
forks workers that must load the new code."""

import fcntl
import glob
import json
import logging
import os
import select
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from importlib.util import find_spec

import gunicorn.glogging
import gunicorn.http.wsgi
import gunicorn.util
import gunicorn.workers.base
from gunicorn.http.wsgi import HEADER_VALUE_RE
from gunicorn.workers.gthread import DEFAULT_WORKER_DATA_TIMEOUT, STOP_KEEPALIVE_LINGER, TConn, ThreadWorker
from pythonjsonlogger.orjson import OrjsonFormatter


def number(name: str, default: int, lowest: int = 1) -> int:
    """The environment's whole number `name`; ends gunicorn with one line where it is none, or below `lowest`."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < lowest:
        sys.exit(f"heroes: {name}: Must be a whole number from {lowest} up.")
    return int(text)


def write_error(sock, status_int, reason, mesg):
    """Writes what gunicorn itself refuses in the API's envelope; the reason is in the log."""
    if status_int == 501:  # an unknown Transfer-Encoding: the client's fault, not ours
        status_int, reason = 400, "Bad Request"
    body = json.dumps({"detail": reason})
    head = f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    gunicorn.util.write_nonblock(sock, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))


gunicorn.util.write_error = write_error


# Headers with few values, none of which a client has a say in.
CONSTANT = {
    "Content-Type",
    "Content-Security-Policy",
    "Cross-Origin-Resource-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
}
# Headers of which nothing but the value can be wrong.
PLAIN = {"ETag", "X-Request-ID"}


class Response(gunicorn.http.wsgi.Response.__mro__[-2]):  # the last but object: after a HUP the first is our own
    """gunicorn's answer with its head and the first piece of its body in one write: it would write the head on its own,
    and of a worker that is killed in between a proxy has half an answer, too late to ask another."""

    head = b""
    checked: set[tuple[str, str]] = set()

    def process_headers(self, headers):
        """Checks the headers that are the same on every answer once, not each time, and of the plain ones the value."""
        for header in headers:
            if header in self.checked or (header[0] in PLAIN and HEADER_VALUE_RE.fullmatch(header[1])):
                self.headers.append(header)
            else:
                super().process_headers([header])
                if header[0] in CONSTANT and header in self.headers:
                    self.checked.add(header)

    def send_headers(self):
        """Keeps the head until there is something to go with it."""
        if not self.headers_sent:
            sock, self.sock = self.sock, self
            super().send_headers()
            self.sock = sock

    def sendall(self, head):
        """Takes the head in place of the socket."""
        self.head = head

    def _emit_body(self, data):
        head, self.head = self.head, b""
        if self.chunked and head:
            gunicorn.util.write(self.sock, head)
            head = b""
        gunicorn.util.write(self.sock, head + data, self.chunked)

    def close(self):
        """Sends what has no body."""
        self.send_headers()
        if self.head:
            gunicorn.util.write(self.sock, self.head)
            self.head = b""
        super().close()


gunicorn.http.wsgi.Response = Response
# The Date header is made once a second.
date = lru_cache(maxsize=1)(partial(formatdate, usegmt=True))
gunicorn.util.http_date = lambda: date(int(time.time()))


class Worker(ThreadWorker):
    """gunicorn's gthread worker without its hand-overs. There the main thread waits for what comes in, passes it to a
    thread, and takes the connection back; here each thread waits itself, answers, and waits again.

    It costs a sixth less CPU for a read, and a client that says nothing holds no thread. Whoever takes a connection out
    of `keepalived_conns`, by its descriptor, is the one to answer or to close it.
    """

    # Without gthread's locks: a signal may interrupt a thread that holds one. The signal itself wakes the main thread.
    handle_exit = gunicorn.workers.base.Worker.handle_exit
    handle_quit = gunicorn.workers.base.Worker.handle_quit

    def init_process(self):
        self.poller = select.epoll()
        self.keepalived_conns = {}
        self.conns = set()
        # What is the same for every request.
        self.environ = gunicorn.http.wsgi.base_environ(self.cfg)
        gunicorn.http.wsgi.base_environ = lambda cfg: self.environ.copy()
        super(ThreadWorker, self).init_process()

    def handle_usr1(self, sig, frame):
        super().handle_usr1(sig, frame)
        self.environ["wsgi.errors"] = gunicorn.http.wsgi.WSGIErrorsWrapper(self.cfg)

    def run(self):
        """The main thread: keeps house until the worker shall stop and its connections are closed."""
        for listener in self.sockets:
            listener.setblocking(False)
            self.poller.register(listener, 0)
        for _ in range(self.cfg.threads):
            threading.Thread(target=self.serve, daemon=True).start()
        while self.alive and self.is_parent_alive():
            for listener in self.sockets:
                self.listen(listener)
            self.keep_house()
        self.alive = False
        for listener in self.sockets:
            self.poller.modify(listener, 0)
        deadline = time.monotonic() + STOP_KEEPALIVE_LINGER
        for conn in self.keepalived_conns.copy().values():
            conn.timeout = min(conn.timeout, deadline)
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self.conns and time.monotonic() < deadline:
            self.keep_house()

    def keep_house(self):
        """Tells the master that the worker lives, closes the connections that were silent for too long, lets no request
        hold a thread for longer than `timeout` by coming slowly, and waits a second or until a signal comes."""
        self.notify()
        for conn in self.conns.copy():
            late = time.monotonic() - conn.timeout
            if conn.sock.fileno() not in self.keepalived_conns:
                if late > self.cfg.timeout > 0:
                    with suppress(OSError):  # its thread may just have closed it
                        conn.sock.shutdown(socket.SHUT_RD)
            elif late > 0 and self.silent(conn) and self.keepalived_conns.pop(conn.sock.fileno(), None):
                self.close(conn)
        if select.select(self.PIPE[:1], [], [], 1)[0]:
            os.read(self.PIPE[0], select.PIPE_BUF)

    def silent(self, conn):
        """Whether there is nothing to read on a connection: what there is may have to wait for a thread."""
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return not poll.poll(0)

    def serve(self):
        """A thread: whatever is ready first."""
        listeners = {listener.fileno(): listener for listener in self.sockets}
        while True:
            for descriptor, _ in self.poller.poll(maxevents=1):
                if conn := self.keepalived_conns.pop(descriptor, None):
                    self.answer(conn)
                elif descriptor in listeners:
                    self.accept(listeners[descriptor])

    def once(self, file):
        """Lets the next event on a file or socket wake one thread, and no other until it is asked for again."""
        self.poller.modify(file, select.EPOLLIN | select.EPOLLONESHOT)

    def listen(self, listener):
        """Waits for a new connection, unless there are too many, or the worker stops."""
        if self.alive and len(self.conns) < self.worker_connections:
            self.once(listener)

    def accept(self, listener):
        """Takes a new connection. Where none can be had, for want of descriptors say, it is tried again in a second."""
        try:
            sock, address = listener.accept()
            conn = TConn(self.cfg, sock, address, listener.getsockname())
            conn.set_timeout()
            self.conns.add(conn)
            self.poller.register(sock, 0)
            self.wait(conn)
        except (BlockingIOError, ConnectionAbortedError):
            pass  # another worker was faster
        except OSError as error:
            self.log.error("No connection: %s", error)
            return
        self.listen(listener)

    def wait(self, conn):
        """Waits for a connection's next request; its first may take longer where none is kept alive."""
        patience = self.cfg.keepalive or DEFAULT_WORKER_DATA_TIMEOUT
        conn.timeout = time.monotonic() + (patience if self.alive else min(patience, STOP_KEEPALIVE_LINGER))
        conn.data_ready = True
        self.keepalived_conns[conn.sock.fileno()] = conn
        self.once(conn.sock)

    def answer(self, conn):
        """Answers what there is to read on a connection."""
        try:
            conn.set_timeout()
            while self.handle(conn):
                if not conn.parser.unreader.buf.getvalue():
                    self.wait(conn)
                    return
                conn.set_timeout()
        except BaseException:
            self.log.exception("Error on a connection")
        self.close(conn, graceful=True)

    def close(self, conn, graceful=False):
        """Closes a connection, and wakes a main thread that waits for the last one."""
        conn.close(graceful)
        self.conns.discard(conn)
        if not self.alive:
            os.write(self.PIPE[1], b".")

    def _keepalive_after(self, conn, keepalive):
        # Of a body that was read to its end, as the app reads every one, there is nothing to be cleared away.
        if getattr(conn.parser.mesg.body.reader, "length", None) == 0:
            conn.parser.mesg = None
        return super()._keepalive_after(conn, keepalive)


# Loopback: the API is open to whoever reaches it. A platform that routes to a port wants BIND=0.0.0.0:$PORT.
bind = os.environ.get("BIND") or f"127.0.0.1:{number('PORT', 8000)}"
worker_class = Worker if hasattr(select, "epoll") else "gthread"  # only Linux has it
workers = number("WEB_CONCURRENCY", min(2 * (os.cpu_count() or 1) + 1, 9))
threads = number("GUNICORN_THREADS", 3)
# Recycled now and then, so that a leak in any library stays small; apart, so that they don't all go at once.
max_requests = number("MAX_REQUESTS", 100_000, lowest=0)
max_requests_jitter = max_requests // 10
keepalive = 5  # seconds
timeout = 60  # seconds without a sign of life from a worker, and for a request to arrive
graceful_timeout = 30  # seconds for the requests in flight when a worker stops
# The installable C parser lets a bare LF end a line: two servers could then read one request differently.
http_parser = "python"
control_socket_disable = True
sendfile = False  # it would pass by the kept head
# A text of 4,300 digits, the longest that is read as an integer, fits in a query.
limit_request_line = 8190  # bytes
# An unknown method is answered by the app, with those that it has.
permit_unconventional_http_method = True
# One line per request is the app's, with the route and the request's id; see heroes/logs.py.
accesslog = None
loglevel = os.environ.get("LOG_LEVEL", "info").lower()
# Whom to believe is said in one place, PROXY_HOPS. gunicorn believes nothing that a proxy says, so it need not look at
# who says it.
secure_scheme_headers = {}
forwarder_headers = ""
forwarded_allow_ips = "*"

FORMATTERS = {
    "json": OrjsonFormatter(
        ["levelname", "name", "message", "process"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
    ),
    "text": logging.Formatter("%(asctime)s %(levelname)s - [%(process)d] %(message)s"),
}


class logger_class(gunicorn.glogging.Logger):
    """gunicorn's own lines in the format of the app's."""

    def setup(self, cfg):
        """Called at the start and on HUP."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(FORMATTERS.get(os.environ.get("LOG_FORMAT", "").lower(), FORMATTERS["json"]))


def on_starting(server):
    """Lets the first worker that can't boot stop the server; a second one would interrupt that with a traceback."""
    stop = server.stop

    def stop_for_good(graceful=True):
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = -1  # no exit code
        stop(graceful)

    server.stop = stop_for_good


if os.environ.get("METRICS") and find_spec("prometheus_client"):
    # Where the workers keep their counts. It outlives a HUP, which reads this file again, and a USR2.
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="heroes-metrics-")
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    def child_exit(server, worker):
        """Adds a dead worker's counts to those of the dead before it, or files and scrapes would grow for ever."""
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # A scrape in between would count them twice, or not at all.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            mark_process_dead(worker.pid)
            for path in glob.glob(f"{folder}/*_{worker.pid}.db"):
                kind = os.path.basename(path).partition("_")[0]
                total = MmapedDict(f"{folder}/{kind}_dead.db")
                for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(path):
                    total.write_value(key, total.read_value(key)[0] + value, timestamp)
                total.close()
                os.remove(path)
        finally:
            os.close(descriptor)

    def on_exit(server):
        """Leaves no folder behind, unless a master that USR2 started goes on counting in it."""
        if not server.reexec_pid:
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


if os.environ.get("PIN_WORKERS", "").lower() in {"1", "on", "t", "true", "y", "yes"}:
    # On several cores the threads of a worker wake each other across them whenever one lets go of Python's lock, which
    # SQLite's driver does at every row.

    def pre_fork(server, worker):
        """Gives a worker the core that has the fewest."""
        taken = Counter(other.core for other in server.WORKERS.values())
        worker.core = min(sorted(os.sched_getaffinity(0)), key=lambda core: taken[core])

    def post_fork(server, worker):
        """Keeps the worker there."""
        os.sched_setaffinity(0, {worker.core})


def pre_request(worker, req):
    """Nothing; gunicorn's own would log paths, which hold what a client looks for."""


def post_worker_init(worker):
    """Puts the settings where Python looks first: gunicorn searches for them anew, some thirty times a request."""
    vars(worker.cfg).update({name: setting.get() for name, setting in worker.cfg.settings.items()})
