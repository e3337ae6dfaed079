"""What the operations on one table have in common: statements, ETags, conditions, safe retries, pages."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

from flask import Response
from sqlalchemy import ColumnElement, Table, Update, bindparam, delete, insert, select, update
from werkzeug.datastructures import ETags
from werkzeug.exceptions import NotFound, PreconditionFailed

from heroes.storage.transactions import Row, read, write
from heroes.web.etags import Conditions, allowed, etag, excluded, matches, none_matches
from heroes.web.fields import INT64_MAX, INT64_MIN, BaseSchema
from heroes.web.idempotency import IdempotencyKeys
from heroes.web.pages import Listing

# A row or rows, which the response schema dumps, and headers.
Content = tuple[Row, dict[str, str]]
Page = tuple[list[Row], dict[str, str]]


class Resource:
    """A table of rows with an `id` and a `version`, see storage.columns.ResourceMixin.

    model: the mapped class; public: the schema of a response; keys: the mapped class of Idempotency-Keys.
    """

    def __init__(self, model: type[Any], public: type[BaseSchema], keys: type[Any]) -> None:
        # Statements on the table, not on the class: they are executed without a session.
        self.table = cast(Table, model.__table__)
        self.keys = IdempotencyKeys(cast(Table, keys.__table__))
        self.errors = {404: f"{model.__name__} not found", 412: f"{model.__name__} has changed"}
        # The schema may have fields that are no columns, and columns under another name.
        names = {"id", "version", *(field.attribute or name for name, field in public().dump_fields.items())}
        self.columns = [column for column in self.table.c if column.name in names]
        self.listing = Listing(self.table, self.columns)
        self.this_row = self.table.c.id == bindparam("this_id")
        self.insert = insert(self.table).returning(*self.columns)
        self.select = select(*self.columns).where(self.this_row)

    @cache  # noqa: B019 - one Resource for each table, which lives as long as the process
    def where(self, match: bool, none_match: bool) -> list[ColumnElement[bool]]:
        """Return the WHERE of a statement on one row, with If-Match or If-None-Match."""
        version = self.table.c.version
        criteria: list[ColumnElement[bool]] = [self.this_row]
        if match:
            criteria.append(version.in_(bindparam("if_match", expanding=True)))
        if none_match:
            criteria.append(version.not_in(bindparam("if_none_match", expanding=True)))
        return criteria

    @cache  # noqa: B019
    def update_statement(self, columns: frozenset[str], match: bool, none_match: bool) -> Update:
        """Return the UPDATE that sets these columns."""
        values: dict[Any, Any] = {self.table.c[name]: bindparam(name) for name in sorted(columns)}
        return update(self.table).where(*self.where(match, none_match)).values(values).returning(*self.columns)

    @cache  # noqa: B019
    def delete_statement(self, match: bool, none_match: bool) -> Any:
        """Return the DELETE of one row."""
        return delete(self.table).where(*self.where(match, none_match)).returning(self.table.c.id)

    def find(self, row_id: int) -> Row:
        """Return a row. Raises NotFound."""
        rows = read(self.select, {"this_id": row_id}) if INT64_MIN <= row_id <= INT64_MAX else []
        if not rows:
            raise NotFound(self.errors[404])
        return rows[0]

    def with_etag(self, row: Row) -> Content:
        """Return a row with its ETag."""
        return row, {"ETag": etag(row["version"])}

    def execute(self, row_id: int, conditions: Conditions, statement: Callable[[bool, bool], Any], values: Row) -> Row:
        """Execute the statement on a row if the conditions hold. Raises NotFound and PreconditionFailed."""
        match, none_match = allowed(conditions), excluded(conditions)
        # Not "id": an UPDATE would set the column that a parameter is named after.
        parameters = values | {"this_id": row_id}
        if match is not None:
            parameters["if_match"] = match
        if none_match:
            parameters["if_none_match"] = none_match
        row = None
        if INT64_MIN <= row_id <= INT64_MAX:
            row = write(statement(match is not None, bool(none_match)), parameters)
        if row is None:
            self.find(row_id)
            raise PreconditionFailed(self.errors[412])
        return row

    def page(self, query: dict[str, Any], prefer: str = "") -> Page:
        """Return a page of the list, and headers."""
        return self.listing.page(query, prefer)

    def create(self, values: dict[str, Any], idempotency_key: str | None = None) -> Content:
        """Insert a row. With a key that was used before, return the row that was created then."""
        if idempotency_key is None:
            return self.with_etag(cast(Row, write(self.insert, values)))
        row, replayed = self.keys.create_once(idempotency_key, self.table.name, self.insert, values)
        content, headers = self.with_etag(row)
        return content, headers | ({"Idempotent-Replayed": "true"} if replayed else {})

    def read(self, row_id: int, **conditions: ETags) -> Content | Response:
        """Return a row, or 304. Raises NotFound and PreconditionFailed, in the order of RFC 9110, 13.2.2."""
        row = self.find(row_id)
        if not matches(row["version"], conditions):
            raise PreconditionFailed(self.errors[412])
        if not none_matches(row["version"], conditions):
            return Response(status=304, headers={"ETag": etag(row["version"])})
        return self.with_etag(row)

    def update(self, row_id: int, changes: dict[str, Any], **conditions: ETags) -> Content:
        """Change a row; without changes it keeps its version. Raises NotFound and PreconditionFailed."""
        if changes:
            statement = partial(self.update_statement, frozenset(changes))
            return self.with_etag(self.execute(row_id, conditions, statement, changes))
        row = self.find(row_id)
        if not matches(row["version"], conditions) or not none_matches(row["version"], conditions):
            raise PreconditionFailed(self.errors[412])
        return self.with_etag(row)

    def delete(self, row_id: int, **conditions: ETags) -> dict[str, bool]:
        """Delete a row. Raises NotFound and PreconditionFailed."""
        self.execute(row_id, conditions, self.delete_statement, {})
        return {"ok": True}
