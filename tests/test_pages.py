"""Pages that stay fast: `after`, a Link to the next page, and a count for those who ask for it."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

Query = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture(autouse=True)
def ten_heroes(client: FlaskClient) -> None:
    """Ids 1 to 10, ages 0 to 9."""
    for age in range(10):
        assert client.post("/heroes/", json={"name": f"H{age}", "age": age, "secret_name": "s"}).status_code == 200


def ids(response: TestResponse) -> list[int]:
    assert response.status_code == 200, response.json
    return [hero["id"] for hero in response.json]


def pages(client: FlaskClient, path: str) -> list[list[int]]:
    """The ids of a page and of all that its Links lead to."""
    found = []
    while path:
        response = client.get(path)
        found.append(ids(response))
        link = response.headers.get("Link", "")
        assert link == "" or link.endswith('>; rel="next"')
        path = f"/heroes/{link[1:].partition('>')[0]}" if link else ""
    return found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=4", [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]),
        ("limit=5", [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], []]),
        ("limit=4&after=3", [[4, 5, 6, 7], [8, 9, 10]]),
        ("limit=4&offset=7", [[8, 9, 10]]),
        ("limit=4&offset=2", [[3, 4, 5, 6], [7, 8, 9, 10], []]),
        ("limit=4&sort=-id", [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]),
        ("limit=2&min_age=5&max_age=7", [[6, 7], [8]]),
        ("limit=2&sort=-age&min_age=7", [[10, 9], [8]]),
        ("limit=0", [[]]),
        ("after=10", [[]]),
        ("after=-9223372036854775808&limit=9", [[1, 2, 3, 4, 5, 6, 7, 8, 9], [10]]),
        ("", [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]),
    ],
)
def test_links_lead_through_all_pages(client: FlaskClient, query: str, expected: list[list[int]]) -> None:
    assert pages(client, f"/heroes/?{query}") == expected


def test_a_link_keeps_the_other_parameters_and_their_last_value(client: FlaskClient) -> None:
    response = client.get("/heroes/?limit=1&limit=2&name=H%26%3D&name=H1&min_age=1&unknown=%C3%A9")

    assert ids(response) == [2]
    response = client.get("/heroes/?limit=9&limit=1&unknown=%C3%A9%20%26")
    assert response.headers["Link"] == '<?limit=1&unknown=%C3%A9+%26&after=1>; rel="next"'


@pytest.mark.parametrize("preference", ["count=exact", "return=minimal, count=exact", "Count=Exact; x=1"])
def test_a_count_is_given_to_those_who_ask(client: FlaskClient, preference: str) -> None:
    response = client.get("/heroes/?min_age=4&limit=2&offset=1&after=1", headers={"Prefer": preference})

    assert ids(response) == [6, 7]
    assert response.headers["X-Total-Count"] == "6"
    assert response.headers["Preference-Applied"] == "count=exact"


@pytest.mark.parametrize("preference", [None, "", "count=estimated", "count=exactly", "x-count=exact"])
def test_nobody_else_gets_a_count(client: FlaskClient, preference: str | None) -> None:
    response = client.get("/heroes/", headers={} if preference is None else {"Prefer": preference})

    assert "X-Total-Count" not in response.headers
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize("after", ["x", "", "1.5", "9223372036854775808"])
def test_a_bad_after_is_refused(client: FlaskClient, after: str) -> None:
    response = client.get(f"/heroes/?after={after}")

    assert response.status_code == 422
    assert [fault["loc"] for fault in response.json["detail"]] == [["query", "after"]]


@pytest.mark.parametrize("sort", ["-id", "name", "-age"])
def test_after_goes_with_the_order_of_ids_only(client: FlaskClient, sort: str) -> None:
    response = client.get(f"/heroes/?after=1&sort={sort}")

    assert response.status_code == 422
    assert response.json["detail"][0]["loc"] == ["query", "after"]
