"""The logging configuration: JSON or text, and the request's id on every line that it causes.

gunicorn.conf.py runs this file by its path, so it imports nothing of heroes, and not Flask, which would slow the start.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonEncoder
from pythonjsonlogger.orjson import OrjsonFormatter

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
# The messages of gunicorn and Flask that quote what a client sent, up to the quotation.
QUOTES = re.compile(r"Invalid request from ip=[0-9A-Fa-f.:%]*(?=: )|Error handling request|Exception on (?=/)")

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class TextFormatter(logging.Formatter):
    """Lines for people. What a client sent can't begin a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without its traceback."""
        return super().formatMessage(record).translate(CONTROLS)


class JSONFormatter(OrjsonFormatter):
    """Lines for programs."""

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line. Python's json also takes what orjson refuses: lone surrogates, integers of any size."""
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:
            return json.dumps(log_data, cls=JsonEncoder, separators=(",", ":"))


FORMATTERS = {
    "text": {"()": TextFormatter, "fmt": "%(asctime)s %(levelname)s [%(process)d] %(request_id)s %(message)s"},
    "json": {
        "()": JSONFormatter,
        "fmt": ["levelname", "name", "process", "message"],
        "rename_fields": {"levelname": "level", "name": "logger"},
        "timestamp": "time",
    },
}


def identify_and_redact(record: logging.LogRecord) -> bool:
    """Add the id of the current request, or "-". Remove what a client sent from the messages of gunicorn and Flask."""
    # gunicorn.conf.py has a copy of this module; the middleware sets the variable of the imported one.
    module = sys.modules.get("heroes.operations.logs")
    record.request_id = module.request_id.get() if module else "-"
    if match := QUOTES.match(str(record.msg)):
        record.msg, record.args = match[0].strip(), ()
    elif record.name == "gunicorn.error" and isinstance(record.args, tuple):
        record.args = tuple(type(each).__name__ if isinstance(each, BaseException) else each for each in record.args)
    return True


def logging_config(level: str, line_format: str) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig().

    Requests go to stdout; everything else, gunicorn's own lines too, to stderr: the output of a command stays clean.
    level: of everything but requests; line_format: "json" or "text".
    """
    handler = {"class": "logging.StreamHandler", "formatter": "line", "filters": [identify_and_redact]}
    own = {"level": level.upper(), "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": FORMATTERS[line_format]},
        "handlers": {name: handler | {"stream": f"ext://sys.{name}"} for name in ("stdout", "stderr")},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "heroes": own,
            "gunicorn.error": own,
            "heroes.access": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        },
    }
