"""The tutorial's own flow, through the test client and against gunicorn."""


def test_create(client):
    response = client.post("/heroes/", json={"id": 9000, "name": "Deadpond", "secret_name": "Dive Wilson"})

    assert response.status_code == 200
    assert response.json == {"name": "Deadpond", "age": None, "id": 1}


def test_serve(serve):
    import urllib.request, json
    s = serve()
    assert json.load(urllib.request.urlopen(s.url + "/heroes/")) == []
    assert s.stop() == 0, s.log.read_text()
