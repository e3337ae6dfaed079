"""Operations on one table: statements, ETags, conditions, safe retries, pages."""

import re
from functools import cache
from typing import Any, cast
from urllib.parse import urlencode

from flask import Response, abort, g, request
from sqlalchemy import ColumnElement, Select, String, Table, bindparam, delete, func, insert, select, update
from werkzeug.datastructures import ETags
from werkzeug.http import quote_etag

from heroes.storage.transactions import Row, read, write
from heroes.web.fields import BaseSchema
from heroes.web.idempotency import IdempotencyKeys
from heroes.web.operation import operation
from heroes.web.responses import json_response

# What the response schema dumps, and headers.
Content = tuple[Row, dict[str, str]]
Page = tuple[list[Row], dict[str, str]]

# RFC 7240, 2: comma-separated preferences, each with parameters after semicolons.
PREFER_COUNT = re.compile(r"(?:^|,)\s*count\s*=\s*\"?exact\"?\s*(?:[;,]|$)", re.IGNORECASE)
MAX_LINK = 2000  # bytes
PAGE_KEYS = {"offset", "limit", "sort"}
# The defaults: If-Match admits any ETag, If-None-Match excludes none.
ANY_ETAG, NO_ETAGS = ETags(star_tag=True), ETags()


def link_header(query: dict[str, Any], last_id: int) -> dict[str, str]:
    """Return the Link to the next page. It repeats the parameters that the client sent and the operation has."""
    kept = [key for key in query if key in request.args and key not in ("after", "offset")]
    # As they were sent, because not every loaded value has the same form. An integer can be shorter.
    sent: dict[str, Any] = {key: request.args.getlist(key)[0 if isinstance(query[key], list) else -1 :] for key in kept}
    sent |= {key: query[key] for key in kept if type(query[key]) is int}
    step = {"after": last_id} if query["sort"] == "id" else {"offset": query["offset"] + query["limit"]}
    link = f'<?{urlencode(sent | step, doseq=True)}>; rel="next"'
    return {"Link": link} if len(link) <= MAX_LINK else {}


class Resource:
    """A table with the columns of storage.columns.ResourceMixin.

    public: the schema of its responses. keys: the mapped class of Idempotency-Keys.
    """

    def __init__(self, model: type[Any], public: type[BaseSchema], keys: type[Any]) -> None:
        # Statements on the table, not on the class: they are executed without a session.
        self.table = cast(Table, model.__table__)
        self.public = public()
        # Not every field is a column; `attribute` may name another one, or be a path into one.
        attributes = (field.attribute or name for name, field in self.public.dump_fields.items())
        names = {"id", "version", *(each.partition(".")[0] for each in attributes)}
        self.columns = [column for column in self.table.c if column.name in names]
        self.keys = IdempotencyKeys(cast(Table, keys.__table__), self.table.name)
        # See ResourceMixin. A class with __table_args__ of its own must repeat it.
        if not self.table.dialect_options["sqlite"]["autoincrement"]:
            raise TypeError(f"{model.__name__} needs ResourceMixin, and sqlite_autoincrement in __table_args__")
        self.errors = {404: f"{model.__name__} not found", 412: f"{model.__name__} has changed"}
        self.this_row = self.table.c.id == bindparam("heroes_row_id")
        self.insert_statement = insert(self.table).returning(*self.columns)
        self.select_statement = select(*self.columns).where(self.this_row)

    def condition(self, name: str) -> ColumnElement[bool]:
        """Return the condition of a filter; see parameters.PageQuery."""
        columns = self.table.c
        value: ColumnElement[Any] = bindparam(name)
        if name == "after":
            return columns.id > value
        # The name of a column comes first: it may begin with a prefix.
        if name in columns:
            return columns[name] == value
        bound, _, column = name.partition("_")
        return {"min": columns[column] >= value, "max": columns[column] <= value}[bound]

    def order(self, sort: str, filters: frozenset[str]) -> list[ColumnElement[Any]]:
        """Return the ORDER BY of a sort: ties by id, NULLs last."""
        column, key = self.table.c[sort.removeprefix("-")], self.table.c.id
        if column is not key:
            first = column.desc() if sort.startswith("-") else column
            return [first.nulls_last() if column.nullable else first, key]
        # `id + 0` keeps SQLite's planner off the primary key, so that it uses the index of the filter.
        by_id = key + 0 if any(name.startswith(("min_", "max_")) for name in filters) else key
        return [by_id.desc() if sort.startswith("-") else by_id]

    @cache  # noqa: B019 - one Resource for each table, which lives as long as the process
    def page_statement(self, sort: str, filters: frozenset[str]) -> Select[Any]:
        matching = select(*self.columns).where(*map(self.condition, sorted(filters)))
        ordered = matching.order_by(*self.order(sort, filters))
        return ordered.offset(bindparam("offset")).limit(bindparam("limit"))

    @cache  # noqa: B019
    def count_statement(self, filters: frozenset[str]) -> Select[Any]:
        """Return the SELECT that counts the rows that match the filters."""
        counted = select(func.count().label("total")).select_from(self.table)
        return counted.where(*map(self.condition, sorted(filters)))

    @cache  # noqa: B019
    def write_statement(self, changed: frozenset[str] | None, match: bool, none_match: bool) -> Any:
        """Return the UPDATE of one row that sets these columns, or its DELETE, with If-Match or If-None-Match."""
        if changed is None:
            statement: Any = delete(self.table).returning(self.table.c.id)
        else:
            values: dict[Any, Any] = {self.table.c[name]: bindparam(name) for name in sorted(changed)}
            statement = update(self.table).values(values).returning(*self.columns)
        statement = statement.where(self.this_row)
        tag = self.table.c.version.cast(String)
        if match:
            statement = statement.where(tag.in_(bindparam("heroes_if_match", expanding=True)))
        if none_match:
            statement = statement.where(tag.not_in(bindparam("heroes_if_none_match", expanding=True)))
        return statement

    def find(self, row_id: int) -> Row:
        """Return a row. Raises NotFound."""
        rows = read(self.select_statement, {"heroes_row_id": row_id})
        if not rows:
            abort(404, self.errors[404])
        return rows[0]

    def with_etag(self, row: Row) -> tuple[Row, dict[str, str]]:
        return row, {"ETag": quote_etag(str(row["version"]))}

    def execute(
        self, row_id: int, changes: Row | None, if_match: ETags = ANY_ETAG, if_none_match: ETags = NO_ETAGS
    ) -> Row:
        """Change a row, or delete it if changes is None. Raises NotFound and PreconditionFailed."""
        # Not the name of a column: an UPDATE would also set that.
        parameters: Row = (changes or {}) | {"heroes_row_id": row_id}
        if not if_match.star_tag:
            # Weak tags match nothing (RFC 9110, 13.1.1), but count in If-None-Match (13.1.2).
            parameters["heroes_if_match"] = [tag for tag in if_match.as_set() if tag and tag.isascii()]
        # Werkzeug has None for an empty ETag. A database that is not UTF-8 lacks some characters beyond ASCII.
        if excluded := [tag for tag in if_none_match.as_set(include_weak=True) if tag and tag.isascii()]:
            parameters["heroes_if_none_match"] = excluded
        row = None
        if not if_none_match.star_tag:
            changed = None if changes is None else frozenset(changes)
            row = write(self.write_statement(changed, not if_match.star_tag, bool(excluded)), parameters)
        if row is None:
            if if_match.star_tag and not (if_none_match.star_tag or excluded):
                # Not 412 if an import or a reused id brings the row back meanwhile.
                abort(404, self.errors[404])
            self.find(row_id)
            abort(412, self.errors[412])
        return row

    def check_names(self, values: dict[str, Any]) -> None:
        """Raise TypeError if a name is not that of a column. SQLAlchemy would ignore the value in an INSERT."""
        if unknown := [name for name in values if name not in self.table.c]:
            raise TypeError(f"{self.table.name} has no column {', '.join(unknown)}; see marshmallow's `attribute`")

    def create(self, values: dict[str, Any], idempotency_key: str | None = None) -> Content | Response:
        """Insert a row. With a key that was used before, return the content of the first response."""
        self.check_names(values)
        # Some clients send an option that is not set as an empty header.
        if not idempotency_key:
            return self.with_etag(cast(Row, write(self.insert_statement, values)))
        # A replay shows what the view showed first.
        view = g.get("heroes_operation") or operation()
        schema = view.response or self.public
        answer, replayed = self.keys.create_once(idempotency_key, self.insert_statement, values, schema)
        _, headers = self.with_etag(answer)
        replay = {"Idempotent-Replayed": "true"} if replayed else {}
        return json_response(answer["content"], view.status, headers | replay)

    def read(self, row_id: int, if_match: ETags = ANY_ETAG, if_none_match: ETags = NO_ETAGS) -> Content | Response:
        """Return a row, or 304. Raises NotFound and PreconditionFailed, in the order of RFC 9110, 13.2.2."""
        row, headers = self.with_etag(self.find(row_id))
        tag = str(row["version"])
        if tag not in if_match:
            abort(412, self.errors[412])
        return Response(status=304, headers=headers) if if_none_match.contains_weak(tag) else (row, headers)

    def update(self, row_id: int, changes: dict[str, Any], **conditions: ETags) -> Content:
        """Change a row; without changes it keeps its version. Raises NotFound and PreconditionFailed."""
        self.check_names(changes)
        if changes:
            return self.with_etag(self.execute(row_id, changes, **conditions))
        unchanged = self.read(row_id, **conditions)
        if isinstance(unchanged, Response):
            abort(412, self.errors[412])
        return unchanged

    def delete(self, row_id: int, **conditions: ETags) -> dict[str, bool]:
        """Delete a row. Raises NotFound and PreconditionFailed."""
        self.execute(row_id, None, **conditions)
        return {"ok": True}

    def page(self, query: dict[str, Any], prefer: str = "") -> Page:
        """Return the rows and headers for a loaded PageQuery and a Prefer header."""
        filters = frozenset(query) - PAGE_KEYS
        rows = read(self.page_statement(query["sort"], filters), query)
        headers = link_header(query, rows[-1]["id"]) if rows and len(rows) == query["limit"] else {}
        if PREFER_COUNT.search(prefer):
            [counted] = read(self.count_statement(filters - {"after"}), query)
            headers |= {"X-Total-Count": str(counted["total"]), "Preference-Applied": "count=exact"}
        return rows, headers
