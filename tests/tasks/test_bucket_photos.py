"""Photos, models and collections that all lie in buckets, through faults and kills."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.buckets import CUT, DROPPED
from helpers.configs import small_eval_config
from helpers.photos import plain_photo, write_noise_photos

import multigrain_jax
from configs import (
    browse,
    embed,
    eval_base,
    eval_retrieval,
    health,
    near_duplicates,
    predict,
    search,
)
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import browse as run_browse
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_classification as run_eval_classification
from multigrain_jax.tasks import eval_retrieval as run_eval_retrieval
from multigrain_jax.tasks import health as run_health
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import predict as run_predict
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks.on_bucket import run_on_bucket

SIZES = ((40, 30), (30, 44), (36, 36))


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def root(gcs, tmp_path):
    """Photos in a bucket, of three classes and both parts."""
    for part in ("train", "val"):
        write_noise_photos(tmp_path / "p" / part, count=3, sizes=SIZES)
    gcs.put_folder(tmp_path / "p", "photos")
    return gcs.url("photos")


def embed_files(workdir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (workdir / "descriptors").iterdir()}


def test_embed_that_is_killed_goes_on_to_the_same_bytes(
    root, gcs, tiny_checkpoint, tmp_path, monkeypatch
):
    make = partial(
        small_eval_config, embed.get_config, root, tiny_checkpoint, rows_per_shard=4
    )
    run_embed.run(make(batch_size=8), tmp_path / "whole")
    real, calls = run_embed.DescriptorWriter.add, []

    def add(self, *arguments):
        real(self, *arguments)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_embed.DescriptorWriter, "add", add)
    gcs.faults.order(CUT, every=5)
    with pytest.raises(KeyboardInterrupt):
        run_embed.run(make(), tmp_path / "killed")
    gcs.faults.order(DROPPED, every=5)
    run_embed.run(make(), tmp_path / "killed")
    assert embed_files(tmp_path / "killed") == embed_files(tmp_path / "whole")
    # Nothing new: nothing is read but the list.
    gcs.faults.clear()
    gcs.requests.clear()
    results = run_embed.run(make(), tmp_path / "whole")
    assert results["num_new"] == 0 and results["num_images"] == 18
    assert gcs.requests["read"] == 0
    gcs.put("photos/train/bee/9.png", plain_photo(9, kind="PNG"))
    gcs.put("photos/train/ant/0.png", plain_photo(8, kind="PNG"))
    gcs.delete("photos/val/cow/0.png")
    results = run_embed.run(make(), tmp_path / "whole")
    assert (results["num_new"], results["num_outdated"]) == (2, 2)


def test_a_collection_that_is_all_in_buckets(
    root, gcs, tiny_checkpoint, tmp_path, capsys
):
    gcs.put_folder(tiny_checkpoint, "model")
    config = small_eval_config(embed.get_config, root, gcs.url("model"))
    run_on_bucket(run_embed.run, config, gcs.url("collection"))
    recorded = json.loads(gcs.data("collection/config.json"))
    assert recorded["init_from"] == gcs.url("model")
    assert recorded["data"]["root"] == root
    assert str(tmp_path).encode() not in gcs.data("collection/descriptors/index.csv")

    config = search.get_config()
    config.database = gcs.url("collection")
    config.queries = f"{root}/val/bee/0.png"
    config.num_neighbours = 2
    results = run_on_bucket(run_search.run, config, gcs.url("found"))
    assert results["num_queries"] == 1 and results["num_database"] == 18
    page = gcs.data("found/report.html").decode()
    assert page.count("data:image/jpeg") == 3
    assert "https://storage.cloud.google.com/" in page and root in page
    assert str(tmp_path) not in page

    # Photos that are moved, or gone, are not lost in silence.
    config = health.get_config()
    config.database = gcs.url("collection")
    assert run_health.run(config, tmp_path / "health")["num_images"] == 18
    for name in gcs.names("photos/"):
        gcs.put(name.replace("photos/", "moved/"), gcs.data(name))
        gcs.delete(name)
    config.data.root = gcs.url("moved")
    capsys.readouterr()
    run_health.run(config, tmp_path / "health")
    said = capsys.readouterr().out
    assert f"photos of {root} are looked for in {gcs.url('moved')}" in said
    assert "not there any more" not in said
    config.data.root = None
    run_health.run(config, tmp_path / "health")
    assert (
        "photos that the page shows are not there any more" in capsys.readouterr().out
    )

    config = browse.get_config()
    config.database = gcs.url("collection")
    with pytest.raises(InputError, match=r"18 photos of gs://.*are in a bucket"):
        run_browse.run(config, tmp_path / "browse")


def test_evaluations_of_photos_in_a_bucket(root, gcs, tiny_checkpoint, tmp_path):
    gcs.put_folder(tiny_checkpoint, "model")
    by_folder = partial(eval_retrieval.get_config, "folder")
    for module, recipe in (
        (run_eval_classification, eval_base.get_config),
        (run_eval_retrieval, by_folder),
    ):
        results = []
        for place, model in (
            (tmp_path / "p", tiny_checkpoint),
            (root, gcs.url("model")),
        ):
            config = small_eval_config(recipe, f"{place}/train", model)
            if "split" in config.data:
                config.data.split = None
            found = module.run(config, tmp_path / f"{len(results)}{module.__name__}")
            found = {k: v for k, v in found.items() if "second" not in k}
            results.append(found)
        assert results[0].keys() == results[1].keys()
        for name, value in results[0].items():
            np.testing.assert_equal(results[1][name], value)


def test_predictions_and_duplicates_of_photos_in_a_bucket(
    root, gcs, tiny_checkpoint, tmp_path
):
    gcs.put_folder(tiny_checkpoint, "model")
    results = []
    for place in (str(tmp_path / "p"), root):
        config = small_eval_config(predict.get_config, place, tiny_checkpoint)
        found = run_predict.run(config, tmp_path / f"predict{len(results)}")
        config = near_duplicates.get_config()
        # Both parts are of the same noise: each photo is there twice, to the byte.
        config.database = place
        found |= run_near_duplicates.run(config, tmp_path / f"same{len(results)}")
        results.append({k: v for k, v in found.items() if k != "seconds"})
    assert results[0] == results[1]
    assert results[0]["num_labelled"] == 18 and results[0]["num_same_bytes"] == 9
    model = multigrain_jax.load_model(tiny_checkpoint)
    one = "train/ant/0.png"
    assert model.similarity(tmp_path / "p" / one, f"{root}/{one}", test_size=40) == (
        pytest.approx(1)
    )
    found = model.embed([tmp_path / "p" / one, f"{root}/{one}"], test_size=40)
    np.testing.assert_array_equal(found[0], found[1])
    groups = multigrain_jax.find_duplicates(root, hash_distance=None)
    assert len(groups) == 9 and all(len(group) == 2 for group in groups)
    config = small_eval_config(predict.get_config, f"{root}/{one}", tiny_checkpoint)
    assert run_predict.run(config, tmp_path / "one")["num_labelled"] == 1


def test_a_workdir_among_the_photos_of_a_bucket_is_refused(root, gcs, tiny_checkpoint):
    gcs.put_folder(tiny_checkpoint, "model")
    before = gcs.names()
    config = small_eval_config(embed.get_config, root, gcs.url("model"))
    for place in ("photos/train/run", "photos/val", "model"):
        with pytest.raises(InputError, match=r"--workdir: gs://\S+ is "):
            run_on_bucket(run_embed.run, config, gcs.url(place))
    assert gcs.names() == before
