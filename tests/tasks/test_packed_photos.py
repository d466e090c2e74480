"""Photos in Parquet files and tar shards, through the tasks."""

import json

import numpy as np
import pytest
from helpers.configs import small_eval_config, small_train_config
from helpers.photos import CLASS_NAMES, encode, noise_photo
from helpers.shards import samples, write_parquet, write_tar

from configs import embed, eval_imagenet, health, search
from multigrain_jax.checkpoint import describe_checkpoint
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_classification as run_eval
from multigrain_jax.tasks import health as run_health
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks import train as run_train
from multigrain_jax.tasks.on_bucket import run_on_bucket

pytestmark = pytest.mark.usefixtures("own_cache")

KINDS = ("parquet", "webdataset")
COUNT = 9
BAD = 4


def photos_and_labels(count=COUNT):
    photos = [encode(noise_photo(n, tint=n % 3), "PNG") for n in range(count)]
    photos[BAD] = b"no photo"
    return photos, [n % 3 for n in range(count)]


def write_set(root, kind, photos, labels):
    """A shard of `train` and one of `val`, of the same photos; `root`."""
    for part in ("train", "val"):
        if kind == "parquet":
            write_parquet(
                root / f"{part}-00000-of-00001.parquet",
                photos,
                labels,
                class_names=CLASS_NAMES,
            )
        else:
            names = [CLASS_NAMES[label] for label in labels]
            members = samples(photos, names, suffix="png")
            write_tar(root / f"{part}-0000.tar", members)
    return root


def name_of(root, kind, number, part="val"):
    if kind == "parquet":
        return f"{root}/{part}-00000-of-00001.parquet#{number}"
    return f"{root}/{part}-0000.tar/{number:04d}.png"


def skipped(workdir):
    lines = (workdir / "skipped.txt").read_text().splitlines()
    return [line.partition(": ")[0] for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_large_files_are_evaluated_embedded_found_and_shown(
    kind, tmp_path, tiny_checkpoint, capsys
):
    photos, labels = photos_and_labels()
    root = write_set(tmp_path / "set", kind, photos, labels)
    data = {"source": kind, "split": "val"}

    config = small_eval_config(eval_imagenet.get_config, root, tiny_checkpoint)
    config.data.update(data)
    results = run_eval.run(config, tmp_path / "eval")
    assert results["val/top5"] == (COUNT - 1) / COUNT
    assert skipped(tmp_path / "eval") == [name_of(root, kind, BAD)]

    database = tmp_path / "embed"
    config = small_eval_config(embed.get_config, root, tiny_checkpoint, data=data)
    results = run_embed.run(config, database)
    assert (results["num_images"], results["num_unreadable"]) == (COUNT - 1, 1)
    assert run_embed.run(config, database)["num_new"] == 0
    # The other part is added, and this one does not count as gone.
    config.data.split = "train"
    results = run_embed.run(config, database)
    assert (results["num_new"], results["num_outdated"]) == (COUNT, 0)
    # A file that was written anew, with one photo less, is embedded anew.
    config.data.split = None
    write_set(root, kind, photos[:-1], labels[:-1])
    results = run_embed.run(config, database)
    assert results["num_new"] == 2 * (COUNT - 1)
    assert results["num_images"] == 2 * (COUNT - 2)

    config = search.get_config()
    config.database = config.queries = str(database)
    config.num_neighbours = 1
    run_search.run(config, tmp_path / "search")
    page = (tmp_path / "search" / "report.html").read_text()
    assert ">not readable<" not in page
    assert page.count("data:image/jpeg") == 2 * 2 * (COUNT - 2)
    rows = (tmp_path / "search" / "results.csv").read_text()
    assert name_of(root, kind, 3) in rows and name_of(root, kind, 3, "train") in rows

    config = health.get_config()
    config.database = str(database)
    run_health.run(config, tmp_path / "health")
    assert "could not be read" not in capsys.readouterr().out


def test_large_files_in_a_bucket_are_evaluated_embedded_and_shown(
    tmp_path, tiny_checkpoint, gcs
):
    photos, labels = photos_and_labels()
    gcs.put_folder(write_set(tmp_path / "set", "parquet", photos, labels), "set")
    root, database = gcs.url("set"), tmp_path / "embed"
    data = {"source": "parquet", "split": "val"}
    config = small_eval_config(eval_imagenet.get_config, root, tiny_checkpoint)
    config.data.update(data)
    results = run_eval.run(config, tmp_path / "eval")
    assert results["val/top5"] == (COUNT - 1) / COUNT
    config = small_eval_config(embed.get_config, root, tiny_checkpoint, data=data)
    results = run_embed.run(config, database)
    assert (results["num_images"], results["num_unreadable"]) == (COUNT - 1, 1)
    assert skipped(database) == [name_of(root, "parquet", BAD)]
    assert run_embed.run(config, database)["num_new"] == 0
    config.data.split = "train"
    results = run_embed.run(config, database)
    assert (results["num_new"], results["num_outdated"]) == (COUNT, 0)
    config = search.get_config()
    config.database = config.queries = str(database)
    config.num_neighbours = 1
    run_search.run(config, tmp_path / "search")
    page = (tmp_path / "search" / "report.html").read_text()
    assert ">not readable<" not in page
    assert page.count("data:image/jpeg") == 2 * 2 * (COUNT - 1)


@pytest.mark.slow
def test_training_on_large_files_takes_the_photos_by_their_rows(tmp_path, gcs):
    photos, labels = photos_and_labels(24)
    root = write_set(tmp_path / "set", "parquet", photos, labels)
    config = small_train_config(root, num_epochs=1, data={"source": "parquet"})
    config.report_split, config.epoch_len_factor = None, 3.0  # every photo
    config.augmentation = "torch"  # colours take long to compile
    config.log_sample_ids = True
    run_train.run(config, tmp_path / "run")
    lines = (tmp_path / "run" / "sample_ids.jsonl").read_text().splitlines()
    stream = RepeatedStream(
        num_images=24,
        num_repeats=config.num_repeats,
        epoch_len_factor=config.epoch_len_factor,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    assert len(lines) == stream.steps_per_epoch
    for step, line in enumerate(lines):
        ids = np.array(json.loads(line)["sample_ids"])
        expected = stream.sample_ids(step)
        # In the place of the photo that is none stands another.
        np.testing.assert_array_equal(ids[expected != BAD], expected[expected != BAD])
        assert BAD not in ids
    names = skipped(tmp_path / "run")
    assert sorted(names) == [
        name_of(root, "parquet", BAD, part) for part in ("train", "val")
    ]
    # With files and workdir in a bucket it is the same training.
    gcs.put_folder(root, "set")
    config.data.root = gcs.url("set")
    run_on_bucket(run_train.run, config, gcs.url("run"))
    digests = [
        describe_checkpoint(run).digest for run in (tmp_path / "run", gcs.url("run"))
    ]
    assert digests[0] == digests[1]
    assert gcs.data("run/sample_ids.jsonl").decode().splitlines() == lines
