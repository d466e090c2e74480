"""The review of duplicates over HTTP: groups, marks, rules, lists, moves."""

import csv
import io
import os
import shutil
import time

import numpy as np
import pytest
from helpers.browsing import make_collection, opened_services
from helpers.descriptors import stored_descriptors
from helpers.served import serving

from multigrain_jax.browse import duplicates as module
from multigrain_jax.tasks.browse import open_review, restore


def row_of(client, made, name):
    return client.services.collection.row_of(str(made.root / name))


def test_groups_follow_the_similarity(client, made, wait):
    assert wait(client)["lowest_threshold"] <= 0.9
    stored = stored_descriptors(made.database)
    paths = sorted(stored)
    sizes = []
    for threshold in (0.99999, 0.9):
        answer = client.get(f"/api/groups?threshold={threshold}").json()
        assert answer["num_groups"] == len(answer["groups"])
        for group in answer["groups"]:
            rows = [p["path"] for p in group["photos"]]
            if any(path not in stored for path in rows):
                continue  # a name that is escaped
            vectors = np.stack([stored[path] for path in rows])
            assert group["lowest"] == pytest.approx(
                (vectors @ vectors.T).min(), abs=1e-5
            )
        sizes.append(answer["num_photos"])
    assert sizes == sorted(sizes) and sizes[0] >= 2
    assert len(paths) == 9


def test_files_of_the_same_bytes_are_apart(client, made, wait):
    wait(client)
    answer = client.get("/api/groups?kind=exact").json()
    assert answer["num_groups"] == 1
    (group,) = answer["groups"]
    assert group["same_bytes"] and group["lowest"] == pytest.approx(1, abs=1e-5)
    names = {os.path.relpath(p["path"], made.root) for p in group["photos"]}
    assert names == {"copy.png", "trip/sea/0.png"}
    assert {(p["width"], p["height"]) for p in group["photos"]} == {(60, 48)}
    # Of equal ones the oldest: a copy keeps the time, so the first row.
    assert group["suggested"] == min(p["row"] for p in group["photos"])


BAD = [
    ("GET", "/api/groups?threshold=2", None, 400),
    ("GET", "/api/groups?threshold=nan", None, 400),
    ("GET", "/api/groups?threshold=x", None, 400),
    ("GET", "/api/groups?linkage=ward", None, 400),
    ("GET", "/api/groups?kind=all", None, 400),
    ("GET", "/api/groups?count=101", None, 400),
    ("GET", "/api/export?format=exe", None, 400),
    ("POST", "/api/marks", {"marks": {"999": "away"}}, 404),
    ("POST", "/api/marks", {"marks": {"x": "away"}}, 404),
    ("POST", "/api/marks", {"marks": {"9" * 5000: "away"}}, 404),
    ("POST", "/api/marks", {"marks": {"0": "delete"}}, 400),
    ("POST", "/api/marks", {"marks": [1]}, 400),
    ("POST", "/api/rules", {"rule": "away"}, 400),
    ("POST", "/api/rules", {"rule": "keep_folder", "folder": "/etc"}, 404),
    ("POST", "/api/trash", {"rows": [0]}, 403),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD)
def test_what_cannot_be_done_is_refused(client, method, path, body, status):
    found = client.get(path) if method == "GET" else client.post(path, body)
    assert found.status == status
    assert found.json()["error"]


def test_marks_rules_and_lists(client, made, wait):
    wait(client)
    copy, original = (row_of(client, made, n) for n in ("copy.png", "trip/sea/0.png"))
    assert client.get("/api/marks").json() == {"marks": {}, "can_undo": False}
    found = client.post("/api/marks", {"marks": {str(copy): "away"}}).json()
    assert found == {"marks": {str(copy): "away"}, "can_undo": True}
    rule = {"rule": "keep_folder", "folder": "photos", "kind": "exact"}
    found = client.post("/api/rules", rule).json()["marks"]
    assert found == {str(copy): "keep", str(original): "away"}
    table = client.get("/api/export")
    assert 'filename="marks.csv"' in table.headers["content-disposition"]
    lines = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert {line["mark"]: line["path"] for line in lines} == {
        "keep": str(made.root / "copy.png"),
        "away": str(made.root / "trip" / "sea" / "0.png"),
    }
    listed = client.get("/api/export?format=paths").body
    assert listed == f"{made.root}/trip/sea/0.png\n".encode()
    assert client.get("/api/export?format=paths0").body == listed[:-1] + b"\0"
    found = client.post("/api/marks/undo", b"").json()["marks"]
    assert found == {str(copy): "away"}
    rule = {"rule": "keep_suggested", "kind": "exact"}
    found = client.post("/api/rules", rule).json()["marks"]
    assert sorted(found.values()) == ["away", "keep"]
    assert client.post("/api/rules", {"rule": "clear"}).json()["marks"] == {}
    while client.post("/api/marks/undo", b"").json()["can_undo"]:
        pass
    assert client.get("/api/marks").json()["marks"] == {}


def snapshot(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def movable(made, tmp_path, tiny_checkpoint):
    """A collection of its own, whose files may be moved: (client, made, workdir)."""
    own = make_collection(tmp_path / "own", tiny_checkpoint)
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    with opened_services(own, workdir) as services:
        review = open_review(services, workdir, lowest=0.5, allow_moves=True)
        with serving(services, review) as client:
            yield client, own, workdir


def test_only_what_is_marked_and_unchanged_is_moved_and_all_comes_back(movable):
    client, made, workdir = movable
    before = snapshot(made.root)
    names = ("copy.png", "trip/sea/1.png", "trip/sea/2.png", "trip/hill/0.png")
    rows = [row_of(client, made, name) for name in names]
    marked = {str(row): "away" for row in rows[:3]}
    client.post("/api/marks", {"marks": marked})
    changed = made.root / "trip" / "sea" / "1.png"
    changed.write_bytes(b"another photo")
    link = made.root / "trip" / "sea" / "2.png"
    shutil.move(link, made.root / "moved.png")
    link.symlink_to(made.root / "moved.png")

    answer = client.post("/api/trash", {"rows": [*rows, 999]}).json()
    assert answer["moved"] == [rows[0]]
    reasons = {each["row"]: each["reason"] for each in answer["problems"]}
    assert "changed" in reasons[rows[1]] and "link" in reasons[rows[2]]
    assert "not marked" in reasons[rows[3]] and "no such photo" in reasons[999]
    assert changed.read_bytes() == b"another photo" and link.is_symlink()
    assert not (made.root / "copy.png").exists()

    # It is gone from everything that is shown.
    assert client.get(f"/api/thumbnail/{rows[0]}").status == 404
    assert client.get("/api/info").json()["num_photos"] == 8
    assert client.get("/api/duplicates").json()["num_in_trash"] == 1
    found = client.post("/api/search?num_neighbours=99", {"row": rows[1]}).json()
    assert rows[0] not in [each["row"] for each in found["neighbours"]]

    # A second server does not show it either.
    again = open_review(client.services, workdir, lowest=0.5, allow_moves=True)
    assert not client.services.collection.has(rows[0])
    assert len(again._trash.entries()) == 1

    assert client.post("/api/restore", b"").json() == {"restored": 1, "problems": []}
    assert client.get("/api/info").json()["num_photos"] == 9
    path = made.root / "copy.png"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before[path]


def test_groups_follow_whichever_photos_are_gone(movable, wait):
    client, made, _ = movable
    wait(client)
    groups = "/api/groups?kind=exact"
    rows = [row_of(client, made, name) for name in ("copy.png", "trip/hill/0.png")]
    client.post("/api/marks", {"marks": {str(row): "away" for row in rows}})
    for row in rows:  # first one is gone, then as many, but another one
        assert client.post("/api/trash", {"rows": [row]}).json()["moved"] == [row]
        is_whole = row == rows[1]
        assert client.get(groups).json()["num_groups"] == int(is_whole)
        client.post("/api/restore", b"")


def test_a_search_that_goes_on_is_broken_off(services, tmp_path, monkeypatch):
    broken_off = []

    def endless(index, lowest, *, on_progress):
        try:
            while True:
                on_progress(0.5)
                time.sleep(0.001)
        except InterruptedError:
            broken_off.append(True)
            raise

    monkeypatch.setattr(module, "find_pairs", endless)
    review = open_review(services, tmp_path, lowest=0.5, allow_moves=False)
    review.close()  # where none was begun, too
    review = open_review(services, tmp_path, lowest=0.5, allow_moves=False)
    review._duplicates.start()
    review.close()
    assert broken_off == [True]
    assert review._duplicates.status()["state"] == "failed"


def test_a_refusal_may_quote_what_utf8_does_not_have(client):
    found = client.post("/api/marks", {"marks": {"\ud800": None}})
    assert found.status == 404 and "\\ud800" in found.json()["error"]


def test_nothing_comes_back_where_nothing_may_be_moved(client):
    assert client.post("/api/restore", b"").status == 403


def test_restore_undoes_all_moves_and_names_what_is_in_the_way(movable, capsys):
    client, made, workdir = movable
    before = snapshot(made.root)
    rows = [row_of(client, made, n) for n in ("copy.png", "trip/sea/1.png")]
    client.post("/api/marks", {"marks": {str(row): "away" for row in rows}})
    assert client.post("/api/trash", {"rows": rows}).json()["moved"] == rows
    assert len(snapshot(made.root)) == len(before) - 2
    restore(workdir)
    assert snapshot(made.root) == before
    assert "2 files are back" in capsys.readouterr().out
