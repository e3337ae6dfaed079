"""Safe retries: a POST with an Idempotency-Key creates one row, however often it is sent."""

import hashlib
import json
import time
from typing import Any

from flask import abort
from marshmallow import Schema
from sqlalchemy import Table, bindparam, delete, select, text, update
from werkzeug.exceptions import ServiceUnavailable

from heroes.storage.transactions import Row, fetch, transaction
from heroes.web.fields import error
from heroes.web.responses import to_json

KEY_LIFETIME = 24 * 60 * 60  # seconds
MAX_FORGOTTEN = 100  # expired keys that a request deletes: all at once could exceed its time limit


class IdempotencyKeys:
    """The keys of a resource. table: see models.IdempotencyKey; resource: the name of the resource's table."""

    def __init__(self, table: Table, resource: str) -> None:
        self.resource = resource
        expired = table.c.created_at < bindparam("before")
        oldest = select(table.c.key).where(expired).order_by(table.c.created_at).limit(MAX_FORGOTTEN)
        some = table.c.key.in_(oldest.with_for_update(skip_locked=True))
        self.forget = delete(table).where(expired, some | (table.c.key == bindparam("key")))
        # Text, because SQLAlchemy's ON CONFLICT is specific to a dialect. Blocks while another request inserts the same
        # key; returns no row if the key exists.
        self.claim = text(
            f"INSERT INTO {table.name} (key, fingerprint, created_at, resource)"
            " VALUES (:key, :fingerprint, :created_at, :resource) ON CONFLICT DO NOTHING RETURNING key"
        )
        self.record = update(table).where(table.c.key == bindparam("claimed")).values(answer=bindparam("answer"))
        self.recall = select(table).where(table.c.key == bindparam("key"))

    def create_once(self, key: str, statement: Any, values: Row, schema: Schema) -> tuple[Row, bool]:
        """Create a row and record the response under the key, in one transaction; or return the recorded one.

        schema: dumps the row. Returns the `content` of the response and the `version` of the row, and whether an
        earlier request recorded them. Aborts with 422 if the key had other values.
        """
        sent = json.dumps(values, default=str, ensure_ascii=False, separators=(",", ":"))
        fingerprint = hashlib.sha256(sent.encode(errors="surrogatepass")).hexdigest()
        now = int(time.time())
        claim = {"key": key, "fingerprint": fingerprint, "created_at": now, "resource": self.resource}
        with transaction() as connection:
            connection.execute(self.forget, {"before": now - KEY_LIFETIME, "key": key})
            if fetch(connection, self.claim, claim):
                [created] = fetch(connection, statement, values)
                content = json.loads(to_json(schema.dump(created)))
                answer = {"content": content, "version": created["version"]}
                connection.execute(self.record, {"claimed": key, "answer": answer})
                return answer, False
            found = fetch(connection, self.recall, {"key": key})
        if not found:
            # It expired in between, by the clock of another host.
            raise ServiceUnavailable(retry_after=1)
        [recorded] = found
        if (recorded["fingerprint"], recorded["resource"]) != (fingerprint, self.resource):
            abort(422, [error("value_error", "was used with another body") | {"loc": ["header", "idempotency-key"]}])
        return recorded["answer"], True
