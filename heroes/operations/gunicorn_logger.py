"""gunicorn's logger. gunicorn.conf.py runs this file by its path."""

from gunicorn import glogging


class Logger(glogging.Logger):  # type: ignore[misc]
    """A logger whose access log is off unless `accesslog` is set: the app writes one, see access_log.py.

    By default `logconfig_dict` turns it on, and each request pays for a line that no handler writes.
    """

    @property
    def access_log_enabled(self) -> bool:
        return bool(self.cfg.accesslog)
