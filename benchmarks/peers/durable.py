"""Same durability for every SQLAlchemy peer: imported, it makes each SQLite connection sync the log on every commit."""

import sqlite3
from typing import Any

from sqlalchemy import Engine, event


@event.listens_for(Engine, "connect")
def sync_on_commit(connection: Any, record: Any) -> None:
    """Sync each commit to the disk, once, because the file is in WAL mode already. No acknowledged write is lost."""
    driver = getattr(connection, "driver_connection", connection)
    if isinstance(driver, sqlite3.Connection) or type(driver).__module__.startswith("aiosqlite"):
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()
