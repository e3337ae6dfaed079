"""ETags made of a row's version, and the conditions of RFC 9110, 13."""

import re
from collections.abc import Mapping
from typing import Any

from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from heroes.web.fields import String

OWN_TAG = re.compile("[1-9][0-9]{0,17}")
# The conditions of a request by the names in ConditionHeaders: if_match and if_none_match.
Conditions = Mapping[str, ETags]


class ETagsField(String):
    """The ETags of an If-Match or If-None-Match header."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return parse_etags(super()._deserialize(value, attr, data, **kwargs))


def etag(version: int) -> str:
    """Return the ETag of a version."""
    return f'"{version}"'


def versions(tags: set[str]) -> list[int]:
    """Return the versions in opaque tags. Tags that are not ours match no version."""
    return [int(tag) for tag in tags if OWN_TAG.fullmatch(tag)]


def allowed(conditions: Conditions) -> list[int] | None:
    """Return the versions that a write may change; None for any. Weak tags match nothing (RFC 9110, 13.1.1)."""
    match, none_match = conditions.get("if_match"), conditions.get("if_none_match")
    if none_match is not None and none_match.star_tag:
        return []
    return None if match is None or match.star_tag else versions(match.as_set())


def excluded(conditions: Conditions) -> list[int]:
    """Return the versions that a write may not change: those of If-None-Match, weak ones too (RFC 9110, 13.1.2)."""
    tags = conditions.get("if_none_match")
    return [] if tags is None else versions(tags.as_set(include_weak=True))


def matches(version: int, conditions: Conditions) -> bool:
    """Return whether If-Match holds for a version."""
    tags = conditions.get("if_match")
    return tags is None or tags.contains(str(version))


def none_matches(version: int, conditions: Conditions) -> bool:
    """Return whether If-None-Match holds for a version."""
    tags = conditions.get("if_none_match")
    return tags is None or not tags.contains_weak(str(version))
