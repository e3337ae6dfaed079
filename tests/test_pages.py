"""Pages: `after`, a Link to the next page, and a count on request."""

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.constants import Query, sqlite_only


@pytest.fixture(autouse=True)
def ten_heroes(query: Query) -> None:
    """Ids 1 to 10, ages 0 to 9."""
    heroes = ", ".join(f"('H{age}', {age}, 's')" for age in range(10))
    query(f"INSERT INTO hero (name, age, secret_name) VALUES {heroes}")


def ids(response: TestResponse) -> list[int]:
    assert response.status_code == 200, response.json
    return [hero["id"] for hero in response.get_json()]


def pages(client: FlaskClient, path: str) -> list[list[int]]:
    """Return the ids of a page and of all pages that follow it by its Links."""
    found = []
    while path:
        response = client.get(path)
        found.append(ids(response))
        link = response.headers.get("Link", "")
        assert link == "" or link.endswith('>; rel="next"')
        path = f"/heroes/{link[1:].partition('>')[0]}" if link else ""
    return found


@pytest.mark.parametrize(
    ("parameters", "expected"),
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
def test_links_lead_through_all_pages(client: FlaskClient, parameters: str, expected: list[list[int]]) -> None:
    assert pages(client, f"/heroes/?{parameters}") == expected


def test_link_keeps_the_last_value_of_other_parameters(client: FlaskClient) -> None:
    response = client.get("/heroes/?limit=2&limit=1&name=H%26%3D&name=H1&min_age=1&offset=0&after=0")

    assert ids(response) == [2]
    assert response.headers["Link"] == '<?limit=1&name=H1&min_age=1&after=2>; rel="next"'


@sqlite_only
def test_link_has_integers_in_their_shortest_form(client: FlaskClient) -> None:
    limit = "0" * 3000 + "1"
    assert client.get(f"/heroes/?limit={limit}").headers["Link"] == '<?limit=1&after=1>; rel="next"'


@pytest.mark.parametrize("junk", ["unknown=x", "Name=H1", "x" * 7000, "x=" + "%C3%A9" * 1000, "&&;=%00", "%ff=%fe"])
def test_link_drops_unknown_parameters(client: FlaskClient, junk: str) -> None:
    assert client.get(f"/heroes/?limit=1&{junk}").headers["Link"] == '<?limit=1&after=1>; rel="next"'


@pytest.mark.parametrize(
    "name, linked",
    [
        ("x" * 500, True),
        ("&" * 500, True),
        ("\u00e9" * 300, True),
        ("\u00e9" * 327 + "x", True),
        ("\u00e9" * 327 + "xx", False),
        ("\U0001f9b8" * 500, False),
    ],
)
def test_a_link_has_at_most_2000_bytes(client: FlaskClient, name: str, linked: bool) -> None:
    for _ in range(2):
        assert client.post("/heroes/", json={"name": name, "secret_name": "s"}).status_code == 200
    response = client.get("/heroes/", query_string={"name": name, "limit": 1})

    assert ids(response) == [11]
    assert ("Link" in response.headers) is linked
    assert len(response.headers.get("Link", "")) <= 2000


@pytest.mark.parametrize("preference", ["count=exact", "return=minimal, count=exact", "Count=Exact; x=1"])
def test_total_count_is_sent_if_preferred(client: FlaskClient, preference: str) -> None:
    response = client.get("/heroes/?min_age=4&limit=2&offset=1&after=5", headers={"Prefer": preference})

    assert ids(response) == [7, 8]
    assert response.headers["X-Total-Count"] == "6"
    assert response.headers["Link"] == '<?limit=2&min_age=4&after=8>; rel="next"'
    assert response.headers["Preference-Applied"] == "count=exact"


@sqlite_only
@pytest.mark.parametrize("preference", [None, "", "count=estimated", "count=exactly", "x-count=exact"])
def test_total_count_is_not_sent_otherwise(client: FlaskClient, preference: str | None) -> None:
    response = client.get("/heroes/", headers={} if preference is None else {"Prefer": preference})

    assert "X-Total-Count" not in response.headers
    assert "Preference-Applied" not in response.headers


@sqlite_only
@pytest.mark.parametrize("after", ["x", "", "1.5", "9223372036854775808"])
def test_invalid_after_is_rejected(client: FlaskClient, after: str) -> None:
    response = client.get(f"/heroes/?after={after}")

    assert response.status_code == 422
    assert [error["loc"] for error in response.get_json()["detail"]] == [["query", "after"]]


@sqlite_only
@pytest.mark.parametrize("sort", ["-id", "name", "-age"])
def test_after_needs_the_order_of_ids(client: FlaskClient, sort: str) -> None:
    response = client.get(f"/heroes/?after=1&sort={sort}")

    assert response.status_code == 422
    assert response.get_json()["detail"][0]["loc"] == ["query", "after"]
