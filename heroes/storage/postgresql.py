"""Engine options and events for PostgreSQL."""

import os
import re
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Lock
from typing import Any

from sqlalchemy import URL, Engine, ExceptionContext, event

from heroes.config import MAX_PORT, ConfigError
from heroes.storage.locks import in_background

# Seconds that a request waits for a new connection. A busy host needs time; one that just failed may be cut off.
MAX_CONNECT_WAIT = 2
WAIT_AFTER_FAILURE = 0.5
READ_ONLY = "25006"  # SQLSTATE of a write on a standby, or on a server that was made read-only
# The function of the server that fails if a prepared statement returns columns of another type than before.
OUTDATED_PLAN = "RevalidateCachedQuery"
STANDBY_TARGETS = {"any", "prefer-standby", "read-only", "standby"}  # targets that may be read-only for good
# The URL parameters that are ours, not libpq's. In any other form they are left to libpq, which refuses them.
OWN_PARAMETERS = re.compile(r"(?<=[?&])(pgbouncer|prepare_threshold)=(\w+)(?:&|$)")
# Settings of the server. {0} is DATABASE_TIMEOUT. Without idle_in_transaction_session_timeout and the keep-alives the
# server would keep the locks and sessions of a vanished client for hours. At a higher isolation level than PostgreSQL's
# default, concurrent writes to a row would fail.
SERVER_OPTIONS = (
    "-c statement_timeout={0}s -c lock_timeout={0}s -c idle_in_transaction_session_timeout={0}s"
    " -c tcp_keepalives_idle=10s -c tcp_keepalives_interval=5s -c tcp_keepalives_count=2"
    " -c default_transaction_isolation=read\\ committed"
)
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 2,  # seconds, for each host
    "tcp_user_timeout": 1000,  # milliseconds until a peer that acknowledges nothing is given up
    # Seconds. They also end the wait for the result of a statement that the server acknowledged.
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "application_name": "heroes",
    "client_encoding": "utf8",  # whatever the encoding of the database is
}


def engine_options(text: str, timeout: int) -> tuple[URL, dict[str, Any], bool]:
    """Return the URL, the engine options, and whether PgBouncer is in between.

    libpq reads the URL itself, so it may hold whatever libpq knows, such as several hosts or sslmode
    (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING). docs/settings.md describes the two
    parameters that are ours. Raises ConfigError if they contradict each other, else various exceptions.
    """
    from psycopg.conninfo import conninfo_to_dict

    own = dict(OWN_PARAMETERS.findall(text))
    arguments = DEFAULTS | conninfo_to_dict("postgresql://" + OWN_PARAMETERS.sub("", text).split("://", 1)[1])
    pgbouncer = {"true": True, "false": False}[own.get("pgbouncer", "false")]
    int(float(arguments["connect_timeout"]))  # as psycopg reads it: an invalid value would fail every request
    # 0 means never, as in JDBC's parameter prepareThreshold. psycopg would prepare at once, and never if it is None.
    arguments["prepare_threshold"] = int(own.get("prepare_threshold", "0")) or None
    if pgbouncer and arguments["prepare_threshold"]:
        # psycopg numbers the statements of each connection. PgBouncer shares server connections between clients, so one
        # client's name would run another client's statement.
        raise ConfigError("DATABASE_URL: prepare_threshold must not be used with pgbouncer=true.")
    if not pgbouncer:
        # The last value of a repeated setting counts.
        options = arguments.get("options") or os.environ.get("PGOPTIONS", "")
        arguments["options"] = f"{SERVER_OPTIONS.format(timeout)} {options}"
    if any(not port.isdecimal() or int(port) > MAX_PORT for port in str(arguments.get("port", "")).split(",") if port):
        raise ValueError("a port is a number of 16 bits")
    for host in arguments.get("host", "").split(","):
        if not host.startswith(("/", "@")):  # the path of a socket
            host.encode("idna")  # as getaddrinfo() does: its UnicodeError would fail every request
    if "," in arguments.get("host", ""):
        # The host that takes writes, also after a failover.
        arguments.setdefault("target_session_attrs", "read-write")
    return URL.create("postgresql+psycopg"), {"connect_args": arguments, "pool_pre_ping": True}, pgbouncer


class Connector:
    """Connect in the background, one attempt at a time, and let no request wait for long.

    Otherwise all threads would wait for a host that was cut off, and none would be left for /health. A later request
    takes the connection of an attempt that was given up, but not its error, which may be of an outage that is over.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.attempt: Future[Any] | None = None
        self.deadline = 0.0
        self.failed = False  # whether the last connection, or the last attempt to connect, failed

    def __call__(self, dialect: Any, record: object, arguments: Any, parameters: Any) -> Any:
        """Return a connection; called by SQLAlchemy. Raises psycopg's OperationalError."""
        deadline = time.monotonic() + (WAIT_AFTER_FAILURE if self.failed else MAX_CONNECT_WAIT)
        # The holder releases the lock by its deadline, so the threads behind it stop waiting then.
        with self.lock:
            if self.attempt and self.attempt.done():
                earlier, self.attempt = self.attempt, None
                # It may have died since. The pool's pre-ping checks no new connection.
                with suppress(dialect.loaded_dbapi.Error):
                    dialect.do_ping(earlier.result())
                    self.failed = False
                    return earlier.result()
            if self.attempt is None:
                self.deadline = deadline
                self.attempt = in_background(lambda: dialect.connect(*arguments, **parameters))
            wait([self.attempt], max(0.0, self.deadline - time.monotonic()))
            self.failed = not self.attempt.done() or self.attempt.exception() is not None
            if not self.attempt.done():
                raise dialect.loaded_dbapi.OperationalError("no connection to the database in time")
            attempt, self.attempt = self.attempt, None
            return attempt.result()


def listen(engine: Engine, target: str | None) -> None:
    """Connect with Connector. Give up connections to a primary that became read-only, and those with an outdated plan.

    target: target_session_attrs of the URL; a connection to a standby that it asks for is kept.
    """
    connector = Connector()
    event.listen(engine, "do_connect", connector)

    @event.listens_for(engine, "handle_error")
    def disconnect(context: ExceptionContext) -> None:
        diag = getattr(context.original_exception, "diag", None)
        if target not in STANDBY_TARGETS and getattr(diag, "sqlstate", None) == READ_ONLY:
            context.is_disconnect = True
        connector.failed |= context.is_disconnect
        if getattr(diag, "source_function", None) == OUTDATED_PLAN:
            context.is_disconnect = True  # but the server is well
