"""gunicorn's logger. gunicorn.conf.py runs this file by its path."""

from typing import Any

from gunicorn import glogging


class Logger(glogging.Logger):  # type: ignore[misc]
    """A logger that formats no access lines that no handler writes, as gunicorn's does if `logconfig_dict` is set.

    The app writes an access log, see access_log.py.
    """

    def access(self, *args: Any) -> None:
        """Write gunicorn's own access line if it is asked for one."""
        if self.cfg.accesslog or self.cfg.syslog:
            super().access(*args)
