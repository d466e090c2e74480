"""Every key that takes a path takes one of a bucket, with the results of a folder's."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.configs import small_eval_config, small_train_config
from helpers.photos import plain_photo, write_noise_photos

from configs import (
    embed,
    eval_retrieval,
    near_duplicates,
    search,
)
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import eval_retrieval as run_eval_retrieval
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks import train as run_train
from multigrain_jax.tasks.prepare import LOCAL_KEYS, PATH_KEYS

SIZES = ((40, 30), (30, 44), (36, 36))


pytestmark = pytest.mark.usefixtures("own_cache")


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
        query_list=written(world.base, "queries.txt", "Q1\nQ0\n"),
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
    # What reads photos, lists and descriptors is the same for all of them.
    on_both = scenario in (copydays, search_descriptors)
    for bucket in (gcs, s3) if on_both else (gcs,):
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
    config.unlock()
    config.update_from_flattened_dict({key: gcs.url("somewhere")})
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
