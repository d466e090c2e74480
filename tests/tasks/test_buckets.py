"""Every key that takes a path takes one of a bucket, with the results of a folder's."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.buckets import BUSY, CUT, DROPPED
from helpers.configs import small_eval_config, small_train_config
from helpers.photos import plain_photo, write_noise_photos

from configs import (
    browse,
    embed,
    eval_base,
    eval_retrieval,
    health,
    near_duplicates,
    search,
)
from multigrain_jax import bucket_copies, mirror
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import browse as run_browse
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_classification as run_eval_classification
from multigrain_jax.tasks import eval_retrieval as run_eval_retrieval
from multigrain_jax.tasks import health as run_health
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks import train as run_train
from multigrain_jax.tasks.on_bucket import run_on_bucket
from multigrain_jax.tasks.prepare import LOCAL_KEYS, PATH_KEYS

SIZES = ((40, 30), (30, 44), (36, 36))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "PAUSE_S", 0.0)
    monkeypatch.setattr(mirror, "PASS_S", 0.05)
    monkeypatch.setattr("multigrain_jax.buckets.retry.FIRST_PAUSE_S", 0.01)


class World:
    """Files of this machine, and the same in a bucket."""

    def __init__(self, base: Path, checkpoint: Path, database: Path):
        self.base, self.checkpoint, self.database = base, checkpoint, database
        self.bucket: Any = None

    def there(self, path: Path) -> str:
        """Where something is: on this machine, or in the bucket, where it is put."""
        if self.bucket is None:
            return str(path)
        name = f"files{path}"
        if path.is_file():
            self.bucket.put(name, path.read_bytes())
        else:
            self.bucket.put_folder(path, name)
        return self.bucket.url(name)

    def here(self, text: str) -> str:
        """What was written, with paths of this machine."""
        return text if self.bucket is None else text.replace(self.files, "")

    @property
    def files(self) -> str:
        return self.bucket.url("files")


@pytest.fixture
def world(tmp_path, tiny_checkpoint, database):
    return World(tmp_path / "world", tiny_checkpoint, database)


def photos(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain_photo(number))
    return folder


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def benchmark(world: World, name: str, counts: dict[str, int], **data: Path) -> Any:
    config = eval_retrieval.get_config(name)
    for key, path in data.items():
        config.data[key] = world.there(path)
    config.expected_counts.update(counts)
    found = run_eval_retrieval._load_benchmark(config.to_dict())
    seen = [world.here(path) for path in found.paths]
    numbers = [found.queries.tolist(), found.database.tolist()]
    numbers += [[p.tolist() for p in each.positives] for each in found.protocols]
    turned = {k: v._asdict() for k, v in found.turned_or_cropped.items()}
    return config, [seen, numbers, turned, found.training.tolist()]


def holidays(world: World) -> Any:
    root = photos(world.base / "jpg", ["100000.jpg", "100001.jpg", "100100.jpg"])
    rotations = written(world.base, "rotate.yaml", '"100001.jpg": 90,\n')
    counts = {"images": 3, "groups": 2}
    return benchmark(world, "holidays", counts, root=root, rotations=rotations)


def disc21(world: World) -> Any:
    references = [f"references/R00000{number}.jpg" for number in range(3)]
    root = photos(
        world.base / "disc", [*references, "queries/Q0.jpg", "queries/Q1.jpg"]
    )
    truth = written(world.base, "truth.csv", "query_id,reference_id\nQ0,R000001\n")
    return benchmark(
        world,
        "disc21",
        {"training": 1},
        root=root,
        ground_truth=truth,
        query_list=written(world.base, "queries.txt", "Q1\n"),
        reference_list=written(world.base, "references.txt", "R000001\nR000002\n"),
        training=photos(world.base / "training", ["T0.jpg"]),
    )


def copydays(world: World) -> Any:
    levels = [f"crops/{level}" for level in (10, 15, 20, 30, 40, 50, 60, 70, 80)]
    levels += [f"jpegqual/{level}" for level in (3, 5, 8, 10, 15, 20, 30, 50, 75)]
    names = ["original/200000.jpg", "strong/200001.jpg"]
    root = photos(
        world.base / "copydays", names + [f"{level}/200000.jpg" for level in levels]
    )
    others = photos(world.base / "others", ["a/1.jpg", "a/2.jpg"])
    return benchmark(
        world,
        "copydays",
        {"originals": 1, "strong": 1, "distractors": 1},
        root=root,
        distractors=others,
        distractor_list=written(world.base, "list.txt", "a/2.jpg\n"),
    )


def outcome(world: World, config, module, workdir: Path, tables: list[str]) -> Any:
    results = module.run(config, workdir)
    timed = ("seconds", "per_second")
    kept = {k: v for k, v in results.items() if not any(t in k for t in timed)}
    recorded = json.loads((workdir / "config.json").read_text())
    return config, [
        kept,
        *(world.here((workdir / table).read_text()) for table in tables),
        json.loads(world.here(json.dumps(recorded))),
    ]


def search_descriptors(world: World) -> Any:
    config = search.get_config()
    folder = world.there(world.database)
    config.update({"database": folder, "queries": folder, "num_neighbours": 3})
    config.score_normalization.training = f"{folder}/descriptors"
    workdir = world.base / f"search{world.bucket is None}"
    return outcome(world, config, run_search, workdir, ["results.csv"])


def search_photos(world: World) -> Any:
    queries = world.base / "queries"
    shutil.rmtree(queries, ignore_errors=True)
    write_noise_photos(queries, ("a", "b"), count=2, sizes=SIZES)
    config = search.get_config()
    config.database = world.there(world.database)
    config.queries = world.there(queries)
    config.init_from = world.there(world.checkpoint)
    workdir = world.base / f"photos{world.bucket is None}"
    return outcome(world, config, run_search, workdir, ["results.csv"])


def find_near_duplicates(world: World) -> Any:
    config = near_duplicates.get_config()
    config.database = world.there(world.database)
    config.reference = f"{config.database}/descriptors"
    config.threshold = 0.9
    workdir = world.base / f"near{world.bucket is None}"
    return outcome(world, config, run_near_duplicates, workdir, ["groups.csv"])


def embed_listed(world: World) -> Any:
    root = world.base / "photos"
    if not root.exists():
        write_noise_photos(root, ("a", "b"), count=3, sizes=SIZES)
        (root / "a" / "bad.png").write_bytes(b"no photo")
    names = ["a/0.png", "b/1.png", "a/bad.png", "b/gone.png"]
    config = small_eval_config(
        embed.get_config, world.there(root), world.there(world.checkpoint)
    )
    config.data.list_file = world.there(
        written(world.base, "list.txt", "\n".join(names))
    )
    workdir = world.base / f"embed{world.bucket is None}"
    config, found = outcome(world, config, run_embed, workdir, ["skipped.txt"])
    # Another program words it in another way that a file is not there.
    found[1] = [line.partition(": ")[0] for line in found[1].splitlines()]
    shard = (workdir / "descriptors" / "shard-00000.npy").read_bytes()
    index = world.here((workdir / "descriptors" / "index.csv").read_text())
    columns = [line.split(",") for line in index.splitlines()]
    # Neither a time of change nor the words for what cannot be read are the same.
    return config, [*found, shard, [[*c[:2], c[3], c[4]] for c in columns]]


def train_on_photos(world: World) -> Any:
    root = world.base / "data"
    if not root.exists():
        for part in ("train", "val"):
            write_noise_photos(root / part, count=9, sizes=SIZES)
    config = small_train_config(
        world.there(root),
        num_epochs=1,
        pretrained_backbone=world.there(world.checkpoint),
    )
    workdir = world.base / f"train{world.bucket is None}"
    run_train.run(config, workdir)
    made = load_checkpoint(workdir)
    return config, [made.step, made.data, made.digests]


# What is done -> the keys that it is told paths by.
SCENARIOS = {
    holidays: ("data.root", "data.rotations"),
    disc21: (
        "data.root",
        "data.ground_truth",
        "data.query_list",
        "data.reference_list",
        "data.training",
    ),
    copydays: ("data.root", "data.distractors", "data.distractor_list"),
    search_descriptors: ("database", "queries", "score_normalization.training"),
    search_photos: ("database", "queries", "init_from"),
    find_near_duplicates: ("database", "reference"),
    embed_listed: ("data.root", "data.list_file", "init_from"),
    train_on_photos: ("data.root", "pretrained_backbone"),
}


def value_of(config, key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


def test_each_key_that_holds_a_path_is_among_them():
    tried = {key for keys in SCENARIOS.values() for key in keys}
    assert tried | set(LOCAL_KEYS) == set(PATH_KEYS)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each is train_on_photos else ())
        for each in SCENARIOS
    ],
    ids=lambda each: each.__name__,
)
def test_in_a_bucket_all_is_as_in_a_folder(scenario, world, gcs, s3):
    _, expected = scenario(world)
    schemes = (gcs,) if scenario in (train_on_photos, search_photos) else (gcs, s3)
    for bucket in schemes:
        world.bucket = bucket
        for old in world.base.glob("*False"):
            shutil.rmtree(old)
        config, found = scenario(world)
        assert found == expected
        for key in SCENARIOS[scenario]:
            assert value_of(config, key).startswith(f"{bucket.scheme}://"), key


@pytest.mark.parametrize("key", LOCAL_KEYS)
def test_what_has_to_be_on_this_machine_is_refused_in_a_bucket(key, gcs, tmp_path):
    config = embed.get_config()
    *outer, name = key.split(".")
    value_of(config, ".".join(outer))[name] = gcs.url("somewhere")
    with pytest.raises(InputError, match=f"{key}: found gs://.* of this machine"):
        run_embed.run(config, tmp_path / "workdir")


@pytest.mark.parametrize("key", PATH_KEYS)
def test_an_address_of_another_kind_is_refused_by_its_key(key, tmp_path):
    given: Any = "https://example.org/photos"
    for name in reversed(key.split(".")):
        given = {name: given}
    config = embed.get_config()
    config.unlock()
    config.update(given)
    with pytest.raises(InputError, match=f"^{key}: .*found an address"):
        run_embed.run(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists() and not Path("https:").exists()


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
    for how in (BUSY, CUT, DROPPED):
        gcs.faults.order(how, every=5)
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            run_embed.run(make(), tmp_path / how)
        run_embed.run(make(), tmp_path / how)
        assert embed_files(tmp_path / how) == embed_files(tmp_path / "whole")
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


def test_a_collection_that_is_all_in_buckets(root, gcs, tiny_checkpoint, tmp_path):
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
    run_health.run(config, tmp_path / "health")
    assert "not there any more" not in (tmp_path / "health" / "report.html").read_text()

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


def test_a_workdir_among_the_photos_of_a_bucket_is_refused(root, gcs, tiny_checkpoint):
    gcs.put_folder(tiny_checkpoint, "model")
    before = gcs.names()
    config = small_eval_config(embed.get_config, root, gcs.url("model"))
    for place in ("photos/train/run", "photos/val", "model"):
        with pytest.raises(InputError, match=r"--workdir: gs://\S+ is "):
            run_on_bucket(run_embed.run, config, gcs.url(place))
    assert gcs.names() == before
