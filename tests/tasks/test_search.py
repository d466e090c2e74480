"""The task `search`, on descriptors and on photos."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import read_table, stored_descriptors
from PIL import Image

import multigrain_jax
from configs import embed, near_duplicates, search
from multigrain_jax.errors import InputError
from multigrain_jax.files import unescape_name
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import search as run_search


def run(database, workdir, queries, **changes):
    config = search.get_config()
    config.database = str(database)
    config.queries = str(queries)
    config.num_neighbours = 4
    config.update(changes)
    results = run_search.run(config, workdir)
    assert json.loads((workdir / "results.json").read_text()) == results
    return results


def neighbours(descriptors, query, query_path):
    others = {path: d for path, d in descriptors.items() if path != query_path}
    # Both orders are that of the index where similarities are equal.
    scores = {
        path: float(np.float32(query) @ d.astype(np.float32))
        for path, d in others.items()
    }
    return sorted(scores.items(), key=lambda pair: -pair[1])[:4]


def check_rows(rows, expected):
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4]
    found = [float(row["similarity"]) for row in rows]
    np.testing.assert_allclose(found, [score for _, score in expected], atol=2e-6)
    assert rows[0]["path"].removeprefix("'") in {
        path for path, score in expected if score > expected[0][1] - 4e-6
    }


def test_descriptors_look_for_their_neighbours_but_not_for_themselves(
    database, tmp_path
):
    results = run(database, tmp_path, database)
    assert results["num_queries"] == results["num_database"] == 21
    descriptors = stored_descriptors(database)
    rows = read_table(tmp_path / "results.csv")
    assert len(rows) == 21 * 4
    for query, descriptor in descriptors.items():
        own = [row for row in rows if row["query"].removeprefix("'") == query]
        assert query not in [row["path"] for row in own]
        check_rows(own, neighbours(descriptors, descriptor, query))
    page = (tmp_path / "report.html").read_text()
    assert "Shown are 21 of 21 queries." in page
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_a_photo_is_embedded_as_the_database_was(database, tmp_path, tiny_checkpoint):
    photo = tmp_path / "query.png"
    path = next(
        path for path in stored_descriptors(database) if path.endswith("=copy.png")
    )
    with Image.open(path) as image:
        image.rotate(10).save(photo)
    results = run(database, tmp_path / "w", photo)
    assert results["num_queries"] == 1
    model = multigrain_jax.load_model(tiny_checkpoint)
    with Image.open(photo) as image:
        pixels = model.preprocess(image, 48, "rect")
    query = np.asarray(model(pixels[None]).normalized_embedding[0])
    rows = read_table(tmp_path / "w" / "results.csv")
    assert {row["query"] for row in rows} == {str(photo)}
    check_rows(rows, neighbours(stored_descriptors(database), query, str(photo)))


def test_a_folder_of_photos_with_a_bad_one(database, tmp_path):
    folder = tmp_path / "queries"
    folder.mkdir()
    paths = sorted(stored_descriptors(database))[:3]
    for number, path in enumerate(paths):
        shutil.copy(path, folder / f"{number}.png")
    (folder / "9.png").write_bytes(b"")
    results = run(database, tmp_path / "w", folder)
    assert (results["num_queries"], results["num_unreadable"]) == (3, 1)
    assert "9.png" in (tmp_path / "w" / "skipped.txt").read_text()
    first = {
        Path(row["query"]).name: float(row["similarity"])
        for row in read_table(tmp_path / "w" / "results.csv")
        if row["rank"] == "1"
    }
    assert first.keys() == {"0.png", "1.png", "2.png"}
    np.testing.assert_allclose(list(first.values()), 1, atol=2e-6)


def test_a_folder_of_queries_without_a_photo_is_told_by_its_key(database, tmp_path):
    (tmp_path / "queries").mkdir()
    with pytest.raises(InputError, match=r"^queries: .*/queries: no images") as error:
        run(database, tmp_path / "w", tmp_path / "queries")
    assert "per class" not in str(error.value)


@pytest.fixture
def linked(photo_folder, tiny_checkpoint, tmp_path):
    """Photos by several names, one of them no UTF-8, and a copy of one."""
    root = tmp_path / "photos"
    shutil.copytree(photo_folder / "train", root / "real")
    photo = next((root / "real").rglob("0.png"))
    (root / "links").symlink_to(root / "real")
    os.link(photo, root / "hard.png")
    shutil.copy(photo, root / "copy.png")
    shutil.copy(photo, os.fsencode(root) + b"/=\xff,\n'.png")
    config = small_eval_config(
        embed.get_config, root, tiny_checkpoint, descriptor_dtype="float32"
    )
    assert run_embed.run(config, tmp_path / "embedded")["num_images"] == 39
    return tmp_path / "embedded", photo


def test_a_photo_is_itself_by_any_name(linked, tmp_path):
    database, photo = linked
    names = [photo, tmp_path / "photos" / "hard.png", tmp_path / "alias"]
    (tmp_path / "alias").symlink_to(photo)
    for name in names:
        run(database, tmp_path / "w", name)
        rows = read_table(tmp_path / "w" / "results.csv")
        found = [os.path.realpath(unescape_name(row["path"])) for row in rows]
        # Two copies, and then others, each once.
        assert len(set(found)) == 4 and str(photo) not in found
        assert len({os.stat(path).st_ino for path in found}) == 4
        assert [round(float(row["similarity"]), 3) for row in rows[:2]] == [1, 1]
        (shown,) = [row["path"] for row in rows if "\n" in row["path"]]
        assert shown.endswith("/=\\xff,\n'.png")


def test_all_photos_by_all_names_find_none_of_their_names(linked, tmp_path):
    database, _ = linked
    results = run(database, tmp_path / "w", database)
    assert results["num_queries"] == 39
    rows = read_table(tmp_path / "w" / "results.csv")
    assert len(rows) == 39 * 4
    for row in rows:
        query, path = (os.stat(unescape_name(row[key])) for key in ("query", "path"))
        assert query.st_ino != path.st_ino


def test_links_are_no_near_duplicates(linked, tmp_path):
    config = near_duplicates.get_config()
    config.database, config.threshold = str(linked[0]), 1 - 2e-6
    results = run_near_duplicates.run(config, tmp_path / "w")
    groups = read_table(tmp_path / "w" / "groups.csv")
    inodes = [os.stat(unescape_name(row["path"])).st_ino for row in groups]
    assert len(set(inodes)) == len(inodes) == results["num_images_in_groups"] == 3
    links = read_table(tmp_path / "w" / "links.csv")
    assert len(links) == results["num_links"] == 19
    for row in links:
        assert os.path.samefile(row["path"], row["link_to"])


def test_a_moved_collection_is_told_and_found(linked, tmp_path, capsys):
    database, photo = linked
    moved = (tmp_path / "photos").rename(tmp_path / "elsewhere")
    photo = moved / photo.relative_to(tmp_path / "photos")
    (moved / "links").unlink()
    (moved / "links").symlink_to(moved / "real")
    run(database, tmp_path / "w", database)
    said = capsys.readouterr().out
    assert "are not there any more" in said and "--config.data.root=DIR" in said
    run(database, tmp_path / "w", photo, data={"root": str(moved)})
    assert "not there any more" not in capsys.readouterr().out
    rows = read_table(tmp_path / "w" / "results.csv")
    found = [unescape_name(row["path"]) for row in rows]
    assert all(
        os.path.exists(path) and not os.path.samefile(path, photo) for path in found
    )
    run(database, tmp_path / "w", database, data={"root": str(moved)})
    assert len(read_table(tmp_path / "w" / "results.csv")) == 39 * 4
    with pytest.raises(InputError, match=r"data\.root: found none of the photos"):
        run(database, tmp_path / "v", photo, data={"root": str(tmp_path / "w")})


def test_the_newest_of_several_databases_is_opened_and_named(
    database, photo_folder, tiny_checkpoint, tmp_path, capsys
):
    shutil.copytree(database, tmp_path / "db")
    config = small_eval_config(
        embed.get_config, photo_folder, tiny_checkpoint, test_size=64
    )
    run_embed.run(config, tmp_path / "db")
    query = next(photo_folder.rglob("*.png"))
    assert run(tmp_path / "db", tmp_path / "w", query)["num_database"] == 18
    assert "is opened, the newest" in capsys.readouterr().out


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_normalised_scores_are_lower_by_the_training_images(
    database, tmp_path, monkeypatch, reduction
):
    monkeypatch.setenv("HOME", str(database.parent))
    run(database, tmp_path / "plain", database)
    normalization = {"training": f"~/{database.name}", "num_neighbours": 5}
    if reduction is not None:
        normalization["reduction"] = reduction
    run(database, tmp_path / "w", database, score_normalization=normalization)
    plain = read_table(tmp_path / "plain" / "results.csv")
    rows = read_table(tmp_path / "w" / "results.csv")
    descriptors = stored_descriptors(database)
    everything = np.array(list(descriptors.values()), np.float32)
    for row, before in zip(rows, plain, strict=True):
        query = descriptors[row["query"].removeprefix("'")]
        five = np.sort(everything @ np.float32(query))[-5:]
        # By twice the similarity of the fifth, unless another is asked for.
        offset = 2 * (five.mean() if reduction == "mean" else five[0])
        lower = float(before["similarity"]) - offset
        assert float(row["similarity"]) == pytest.approx(lower, abs=2e-5)


def test_descriptors_of_another_size_are_refused(database, larger_collection, tmp_path):
    with pytest.raises(InputError, match="test_size: the folder has 64, this run 48"):
        run(database, tmp_path, larger_collection)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": "nowhere.jpg"}, "nowhere.jpg was expected to be a photo"),
        (
            {"database": "nowhere"},
            "nowhere: a folder of descriptors was expected, found nothing there",
        ),
        ({"queries": ""}, "queries: found nothing"),
        ({"num_neighbours": 0}, "num_neighbours: found 0"),
        (
            {"score_normalization": {"weight": -1.0}},
            "score_normalization.weight: found",
        ),
        (
            {"score_normalization": {"weight": 1.0}},
            "weight: found 1.0 without score_normalization.training, by which scores",
        ),
        (
            {"score_normalization": {"reduction": "min"}},
            "score_normalization.reduction: found 'min', expected one of nth, mean",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(database, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(**{"database": database, "queries": database, **changes}, workdir=tmp_path)


def test_neighbours_join_a_query(database, tmp_path):
    photo = sorted(stored_descriptors(database))[0]
    plain = run(database, tmp_path / "plain", photo)
    expansion = {"num_neighbours": 2, "alpha": 1.0}
    joined = run(database, tmp_path / "joined", photo, query_expansion=expansion)
    assert joined["num_queries"] == plain["num_queries"] == 1
    stored = stored_descriptors(database)
    near = neighbours(stored, stored[photo], photo)[:2]
    query = stored[photo] + sum(score * stored[path] for path, score in near)
    query /= np.linalg.norm(query)
    rows = read_table(tmp_path / "joined" / "results.csv")
    check_rows(rows, neighbours(stored, query, photo))
    assert rows != read_table(tmp_path / "plain" / "results.csv")


def test_queries_are_embedded_at_the_sizes_of_the_database(
    photo_folder, tiny_checkpoint, tmp_path
):
    config = small_eval_config(
        embed.get_config, photo_folder, tiny_checkpoint, descriptor_dtype="float32"
    )
    config.test_size = (64, 40)
    run_embed.run(config, tmp_path / "several")
    photo = next((photo_folder / "train").rglob("0.png"))
    shutil.copy(photo, tmp_path / "query.png")
    run(tmp_path / "several", tmp_path / "w", tmp_path / "query.png")
    first = read_table(tmp_path / "w" / "results.csv")[0]
    assert first["path"] == str(photo)
    assert float(first["similarity"]) == pytest.approx(1, abs=2e-6)
    # Descriptors of one of the sizes are no queries of it.
    config.test_size = 64
    run_embed.run(config, tmp_path / "one")
    with pytest.raises(InputError, match=r"test_size: .* 64, this run \(40, 64\)"):
        run(tmp_path / "several", tmp_path / "w", tmp_path / "one")
