"""The routes of the server, over HTTP."""

import io
import os
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.descriptors import stored_descriptors
from helpers.photos import encode, noise_photo
from helpers.served import serving
from PIL import Image

from multigrain_jax.files import escape_name, unescape_name


def row_of(client, made, name):
    row = client.services.collection.row_of(str(made.root / name))
    assert row is not None
    return row


def test_a_photo_is_embedded_as_embed_does(client, made):
    stored = stored_descriptors(made.database)
    path = made.root / "trip" / "hill" / "1.png"
    for found in (
        client.post("/api/embed", path.read_bytes()),
        client.post_form("/api/embed", path.read_bytes()),
    ):
        assert found.status == 200
        answer = found.json()
        np.testing.assert_allclose(answer["descriptor"], stored[str(path)], atol=1e-6)
        assert len(answer["logits"]) == 3
        assert [each["name"] for each in answer["classes"]] == [
            ("ant", "bee", "cow")[n] for n in np.argsort(-np.array(answer["logits"]))
        ]
        assert sum(e["probability"] for e in answer["classes"]) == pytest.approx(1)


def test_a_search_finds_what_a_plain_product_finds(client, made):
    stored = stored_descriptors(made.database)
    path = str(made.root / "trip" / "hill" / "1.png")
    expected = sorted(stored, key=lambda p: -float(stored[p] @ stored[path]))
    answer = client.post("/api/search?num_neighbours=4", Path(path).read_bytes()).json()
    assert len(answer["neighbours"]) == 4
    assert answer["neighbours"][0]["path"] == path
    assert answer["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    similarities = [each["similarity"] for each in answer["neighbours"]]
    wanted = [float(stored[p] @ stored[path]) for p in expected[:4]]
    np.testing.assert_allclose(similarities, wanted, atol=1e-5)
    by_descriptor = client.post(
        "/api/search?num_neighbours=4", {"descriptor": stored[path].tolist()}
    ).json()
    assert [n["row"] for n in by_descriptor["neighbours"]] == [
        n["row"] for n in answer["neighbours"]
    ]


def test_a_photo_of_the_collection_is_not_among_its_own_neighbours(client, made):
    row = row_of(client, made, "copy.png")
    answer = client.post("/api/search?num_neighbours=1000", {"row": row}).json()
    rows = [each["row"] for each in answer["neighbours"]]
    assert len(rows) == len(client.services.collection) - 1 and row not in rows
    assert rows[0] == row_of(client, made, "trip/sea/0.png")


def test_a_search_stays_in_a_folder_or_a_class(client, made):
    row = row_of(client, made, "copy.png")
    for part, folders in (("folder=trip", {"sea", "hill"}), ("class=sea", {"sea"})):
        found = client.post(f"/api/search?num_neighbours=99&{part}", {"row": row})
        paths = [each["path"] for each in found.json()["neighbours"]]
        assert {os.path.basename(os.path.dirname(path)) for path in paths} == folders
        assert len(paths) == 3 * len(folders)


def test_the_collection_is_told_in_order(client):
    info = client.get("/api/info").json()
    assert [f["name"] for f in info["folders"]] == ["photos", "trip/hill", "trip/sea"]
    assert [f["count"] for f in info["folders"]] == [3, 3, 3]
    assert info["classes"] == ["hill", "photos", "sea"]
    assert info["threshold"] == 0.9 and "guess" in info["threshold_origin"]
    whole = client.get("/api/collection").json()
    part = client.get("/api/collection?first=2&count=3").json()
    assert whole["num_photos"] == part["num_photos"] == len(whole["photos"]) == 9
    assert part["photos"] == whole["photos"][2:5]


def test_names_that_are_no_text_can_be_undone(client, made):
    whole = client.get("/api/collection").json()["photos"]
    names = {os.path.basename(unescape_name(each["path"])) for each in whole}
    assert {"caf\udce9.png", "<img src=x onerror=alert(1)>&\"'.png"} <= names
    assert any(escape_name("caf\udce9.png") in each["path"] for each in whole)


def test_photos_and_thumbnails_are_pictures(client, made):
    row = row_of(client, made, "trip/sea/2.png")
    photo = client.get(f"/api/photo/{row}")
    assert photo.body == (made.root / "trip" / "sea" / "2.png").read_bytes()
    assert photo.headers["content-type"] == "image/png"
    small = client.get(f"/api/thumbnail/{row}")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.body)).size == (60, 48)


def test_a_browser_asks_whether_a_thumbnail_is_still_that_photos(client, made):
    first, second = (client.get(f"/api/thumbnail/{row}") for row in (0, 1))
    # Of another collection on the same port the same row is another photo.
    assert "no-cache" in first.headers["cache-control"]
    assert first.headers["etag"] != second.headers["etag"]
    known = {"if-none-match": first.headers["etag"]}
    assert client.get("/api/thumbnail/0", known).status == 304
    other = client.get("/api/thumbnail/1", known)
    assert (other.status, other.body) == (200, second.body)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7, 1e37])
def test_a_descriptor_of_any_length_finds_by_its_direction(client, scale):
    descriptor = client.services.search.descriptor(0).astype(float)
    sent = {"descriptor": (scale * descriptor).tolist()}
    first = client.post("/api/search", sent).json()["neighbours"][0]
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["similarity"] <= 1


@pytest.mark.parametrize("value", [0, 1e39, "1"])
def test_a_descriptor_without_a_direction_is_refused(client, value):
    length = len(client.services.search.descriptor(0))
    answer = client.post("/api/search", {"descriptor": [value] * length})
    assert answer.status == 400, answer.body


@pytest.mark.parametrize("path", ["photo/999", "thumbnail/999"])
def test_a_photo_that_is_not_there_is_a_grey_tile(client, path):
    found = client.get(f"/api/{path}")
    assert found.status == 404
    assert found.headers["content-type"] == "image/svg+xml"
    assert b"not there any more" in found.body


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "-1", "1/../../x", "%2e%2e%2fx", "x"]
)
def test_a_path_is_no_row(client, path):
    assert client.get(f"/api/photo/{path}").status == 404


BAD = [
    ("/api/embed", b"", 400, "nothing was sent"),
    ("/api/embed", b"not a photo", 422, "not an image"),
    ("/api/embed", b"\x89PNG\r\n\x1a\n" + bytes(50), 422, "no photo"),
    ("/api/search", {"row": True}, 400, "expected"),
    ("/api/search", {"row": 10**9}, 404, "no photo of row"),
    ("/api/search", {"path": "/etc/passwd"}, 400, "expected"),
    ("/api/search", [1], 400, "an object"),
    ("/api/search", {"descriptor": [1, 2]}, 400, "expected 8 finite"),
    ("/api/search", {"descriptor": "abc"}, 400, "list of numbers"),
    ("/api/search", {"descriptor": [[1], [2, 3]]}, 400, "list of numbers"),
    ("/api/search", {"descriptor": ["NaN"] * 8}, 400, "finite"),
    ("/api/search?num_neighbours=0", {"row": 0}, 400, "1 to 1000"),
    ("/api/search?num_neighbours=1001", {"row": 0}, 400, "1 to 1000"),
    ("/api/search?num_neighbours=x", {"row": 0}, 400, "num_neighbours"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD)
def test_what_cannot_be_answered_is_refused_with_its_reason(
    client, path, body, status, words
):
    found = client.post(path, body)
    assert found.status == status
    assert words in found.json()["error"]


def test_broken_json_and_forms_are_refused(client):
    kind = {"content-type": "application/json"}
    assert client.post("/api/search", b"{" * 50_000, kind).status == 400
    form = {"content-type": "multipart/form-data"}
    assert client.post("/api/embed", b"--x\r\n\r\n", form).status == 400
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/embed", b"--y\r\n\r\nabc", form).status == 400
    assert client.post_form("/api/embed", b"abc", name="other").status == 400


def test_methods_and_paths_that_are_not_there(client):
    assert client.get("/api/embed").status == 405
    assert client.get("/nothing").status == 404
    assert client.get("/static/../app.py").status == 404
    assert client.get("/static/%2e%2e/app.py").status == 404


def test_too_large_uploads_are_refused(client, monkeypatch):
    monkeypatch.setattr("multigrain_jax.browse.uploads.MAX_UPLOAD_BYTES", 1000)
    assert client.post("/api/embed", bytes(1001)).status == 413
    assert client.post("/api/embed", bytes(1000)).status == 422


def test_an_upload_that_stops_is_given_up(client, monkeypatch):
    monkeypatch.setattr("multigrain_jax.browse.uploads.UPLOAD_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(
            b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 9\r\n\r\nab"
        )
        assert b" 408 " in connection.recv(1000)
    assert client.services.gate.inside == 0


def test_photos_that_arrive_together_share_a_batch(client):
    photo = encode(noise_photo(3, (60, 48)))
    client.post("/api/embed", photo)  # the process that decodes is there
    embedder, sizes = client.services.embedder, []
    on_batch = embedder._on_batch
    first, go = threading.Event(), threading.Event()

    def hold(count, seconds):
        sizes.append(count)
        first.set()
        go.wait(20)
        on_batch(count, seconds)

    embedder._on_batch = hold
    answers = []

    def ask():
        answers.append(client.post("/api/embed", photo).json()["descriptor"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    try:
        threads[0].start()
        assert first.wait(20)  # the network is busy with the first
        for thread in threads[1:]:
            thread.start()
        patience = time.monotonic() + 20
        while embedder._arrivals.qsize() < 5 and time.monotonic() < patience:
            time.sleep(0.001)
        go.set()
        for thread in threads:
            thread.join()
    finally:
        embedder._on_batch = on_batch
    assert sizes == [1, 5]
    assert all(answer == answers[0] for answer in answers)


def test_a_full_queue_says_when_to_come_again(client):
    gate = client.services.gate
    with_all = [gate.enter() for _ in range(gate._max_requests)]
    for each in with_all:
        each.__enter__()
    try:
        found = client.post("/api/embed", bytes(20 << 20))  # all of it is sent
        assert found.status == 503
        assert 1 <= int(found.headers["retry-after"]) <= 30
        # What needs no network is answered.
        assert client.post("/api/search", {"row": 0}).status == 200
    finally:
        for each in with_all:
            each.__exit__(None, None, None)
    assert client.post("/api/embed", b"x").status == 422
    assert "multigrain_rejected_total 1" in client.get("/metrics").body.decode()


def test_metrics_count_what_was_asked(client):
    client.get("/health")
    lines = client.get("/metrics").body.decode().splitlines()
    asked = [line for line in lines if 'path="/health",status="200"' in line]
    assert len(asked) == 1 and float(asked[0].split()[-1]) >= 1
    assert "multigrain_photos 9" in lines
    assert "multigrain_waiting 0" in lines


def test_a_token_is_asked_for_and_becomes_a_cookie(services, review):
    with serving(services, review, token="s3cret+/=") as client:
        assert client.get("/api/info").status == 401
        assert client.get("/api/info").headers["www-authenticate"] == "Bearer"
        for path in ("/", "/health", "/docs", "/openapi.json"):
            assert client.get(path).status == 200
        assert client.get("/metrics").status == 401
        for wrong in ("Bearer s3cret", "Bearer sécret", "Basic s3cret+/=", "s3cret+/="):
            header = {"authorization": wrong}
            assert client.post("/api/session", b"", header).status == 401
        right = {"authorization": "Bearer s3cret+/="}
        assert client.get("/api/info", right).status == 200
        given = client.post("/api/session", b"", right).headers["set-cookie"]
        assert "HttpOnly" in given and "SameSite=strict" in given
        cookie = given.split(";")[0]
        assert client.get("/api/thumbnail/0", {"cookie": cookie}).status == 200
        assert client.get("/api/info", {"cookie": cookie[:-2]}).status == 401


def test_classes_need_names_for_all_logits(services):
    assert services.likely_classes(None, count=3) == []
    assert services.likely_classes(np.zeros(2, np.float32), count=3) == []
    found = services.likely_classes(np.log([1, 2, 1]).astype(np.float32), count=2)
    assert found == [("bee", pytest.approx(0.5)), ("ant", pytest.approx(0.25))]


def test_requests_of_other_sites_are_refused(client):
    assert client.get("/", {"host": "evil.example"}).status == 403
    other = {"origin": "http://evil.example"}
    assert client.post("/api/search", {"row": 0}, other).status == 403
    assert client.get("/api/photo/0", {"sec-fetch-site": "cross-site"}).status == 403
    own = {"origin": client.address, "sec-fetch-site": "same-origin"}
    assert client.post("/api/search", {"row": 0}, own).status == 200


def test_every_answer_has_the_policy(client):
    for path in ("/", "/api/photo/999", "/nothing", "/static/style.css", "/docs"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    refused = client.get("/", {"host": "evil.example"}).headers
    assert "content-security-policy" in refused


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_the_pages_have_no_inline_script_and_name_nothing_elsewhere(client, name):
    page = client.get({"index.html": "/", "docs.html": "/docs"}[name]).body.decode()
    assert "//" not in page.replace("<!DOCTYPE", "")
    assert not re.search(r"\s(style|on\w+)=", page)
    assert all("src=" in tag for tag in page.split("<script")[1:])
