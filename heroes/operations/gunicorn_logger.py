"""gunicorn's logger. gunicorn.conf.py runs this file by its path."""

from gunicorn import glogging


class Logger(glogging.Logger):  # type: ignore[misc]
    """Skip access lines that no handler writes. With `logconfig_dict`, gunicorn formats them anyway.

    The app writes an access log, see access_log.py.
    """

    @property
    def access_log_enabled(self) -> bool:
        """Return whether gunicorn is asked for its own access log."""
        return bool(self.cfg.accesslog or self.cfg.syslog)
