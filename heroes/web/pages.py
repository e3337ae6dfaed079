"""Pages of a list: filters, order, Link to the next page, count."""

import re
from functools import cache
from operator import ge, le
from typing import Any, cast
from urllib.parse import urlencode

from flask import request
from sqlalchemy import ColumnElement, Select, Table, bindparam, func, select

from heroes.storage.transactions import Row, read
from heroes.web.fields import BaseSchema

Page = tuple[list[Row], dict[str, str]]  # rows, which the response schema dumps, and headers

# RFC 7240, 2: comma-separated preferences, each with parameters after semicolons.
PREFER_COUNT = re.compile(r"(?:^|,)\s*count\s*=\s*\"?exact\"?\s*(?:[;,]|$)", re.IGNORECASE)
MAX_LINK = 2000  # bytes
PAGE_KEYS = {"offset", "limit", "sort"}


class Listing:
    """The rows of a table. model: the mapped class; public: the schema of a response, of which `id` is a field."""

    def __init__(self, model: type[Any], public: type[BaseSchema]) -> None:
        # Statements on the table, not on the class: they are executed without a session.
        self.table = cast(Table, model.__table__)
        # Not every field is a column; `attribute` may name another one.
        names = {"id", "version", *(field.attribute or name for name, field in public().dump_fields.items())}
        self.columns = [column for column in self.table.c if column.name in names]

    def condition(self, name: str) -> ColumnElement[bool]:
        """Return the condition of a filter; see parameters.PageQuery."""
        columns = self.table.c
        value: ColumnElement[Any] = bindparam(name)
        # The name of a column comes first: it may begin with a prefix.
        if name in columns:
            return columns[name] == value
        if name == "after":
            return columns.id > value
        bound, _, column = name.partition("_")
        compare = {"min": ge, "max": le}[bound]
        return cast(ColumnElement[bool], compare(columns[column], value))

    def order(self, sort: str, filters: frozenset[str]) -> list[ColumnElement[Any]]:
        """Return the ORDER BY of a sort: ties by id, NULLs last."""
        column, key = self.table.c[sort.removeprefix("-")], self.table.c.id
        if column is not key:
            first = column.desc() if sort.startswith("-") else column
            return [first.nulls_last() if column.nullable else first, key]
        # `id + 0` keeps SQLite's planner off the primary key, so that it uses the index of the filter.
        by_id = key + 0 if any(name.startswith(("min_", "max_")) for name in filters) else key
        return [by_id.desc() if sort.startswith("-") else by_id]

    @cache  # noqa: B019 - one Listing for each table, which lives as long as the process
    def page_statement(self, sort: str, filters: frozenset[str]) -> Select[Any]:
        matching = select(*self.columns).where(*map(self.condition, sorted(filters)))
        ordered = matching.order_by(*self.order(sort, filters))
        return ordered.offset(bindparam("offset")).limit(bindparam("limit"))

    @cache  # noqa: B019
    def count_statement(self, filters: frozenset[str]) -> Select[Any]:
        """Return the SELECT that counts the rows that match the filters."""
        counted = select(func.count().label("total")).select_from(self.table)
        return counted.where(*map(self.condition, sorted(filters)))

    def page(self, query: dict[str, Any], prefer: str = "") -> Page:
        """Return the rows and headers for a loaded PageQuery and a Prefer header."""
        filters = frozenset(query) - PAGE_KEYS
        rows = read(self.page_statement(query["sort"], filters), query)
        headers = link_header(query, rows[-1]["id"]) if rows and len(rows) == query["limit"] else {}
        if PREFER_COUNT.search(prefer):
            [counted] = read(self.count_statement(filters - {"after"}), query)
            headers |= {"X-Total-Count": str(counted["total"]), "Preference-Applied": "count=exact"}
        return rows, headers


def link_header(query: dict[str, Any], last_id: int) -> dict[str, str]:
    """Return the Link to the next page. It repeats the parameters that the client sent and the operation has."""
    kept = [key for key in query if key in request.args and key not in ("after", "offset")]
    # As they were sent, because not every loaded value has the same form. An integer can be shorter.
    sent = {key: query[key] if isinstance(query[key], int) else request.args.getlist(key)[-1] for key in kept}
    step = {"after": last_id} if query["sort"] == "id" else {"offset": query["offset"] + query["limit"]}
    link = f'<?{urlencode(sent | step)}>; rel="next"'
    return {"Link": link} if len(link) <= MAX_LINK else {}
