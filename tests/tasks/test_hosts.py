"""Every task by two processes with two devices each, and by one alone."""

import json
import math

import jax
import numpy as np
import pytest
from helpers.configs import SHORT_TRAINING
from helpers.hosts import Job, run_alone, run_jobs
from helpers.photos import CLASS_NAMES, MIXED_SIZES, write_noise_photos

from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.models.multigrain import create_model, split_model

pytestmark = pytest.mark.slow

# In batches of 8 of 18 photos the last one has fewer for the second host.
PHOTOS = 18
BAD = ("ant/0.png", "bee/3.png", "cow/5.png")
READABLE = PHOTOS - len(BAD)
# name -> recipe, its argument, keys, and how often every photo is read.
JOBS = {
    "classification": (
        "eval_base",
        None,
        {"knn_probe": True, "test_size": 48, "test_mode": "rect"},
        2,
    ),
    "sweep": (
        "sweep_p",
        None,
        {"test_sizes": [33], "pooling_exponent": [1.0, 3.0]},
        1,
    ),
    "finetune": (
        "finetune_p",
        None,
        # Three photos do not divide over four devices.
        {"test_size": 48, "batch_size": 3, "data.val_split": "train"},
        3,
    ),
    # The fit, and the photos and their copies before and after.
    "whiten": ("whiten", None, {"test_size": 48, "report_split": "train"}, 5),
    # Validation before and after, of the weights and of their average at once; for each
    # the report: of the photos, of their copies, and (by another name of the part) of
    # those of training.
    "train": (
        "base",
        None,
        {
            **SHORT_TRAINING,
            "batch_size": 8,
            "batch_norm_group_size": 8,
            "sampling_group_size": 8,
            "num_repeats": 3,
            "classification_weight": 0.5,
            "learning_rate": 0.05,
            "ema_decay": 0.5,
            "max_skipped_fraction": 0.5,
            "log_every_steps": 1,
            "data.val_split": "train",
            "report_split": "training",
            "report_leaks": True,
        },
        8,
    ),
    "retrieval": ("eval_retrieval", "folder", {"test_size": [33, 48]}, 2),
    "embed": ("embed", None, {"test_size": 48, "descriptor_dtype": "float32"}, 1),
    "search": ("search", None, {"query_expansion.num_neighbours": 3}, 0),
    "search_photos": ("search", None, {"num_neighbours": 4}, 1),
}
RATES = {"seconds", "images_per_second", "search_seconds"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photos/train`, of which three cannot be read, and a model `tiny` in float64."""
    folder = tmp_path_factory.mktemp("hosts")
    photos = folder / "photos" / "train"
    write_noise_photos(photos, count=len(MIXED_SIZES), sizes=MIXED_SIZES)
    for name in BAD:
        (photos / name).write_bytes(b"no image")
    with jax.enable_x64(True):
        model = create_model("tiny", num_classes=3, seed=1, dtype=np.dtype(np.float64))
        store = CheckpointStore(folder / "tiny")
        meta = {"backbone": "tiny", "num_classes": 3, "class_names": list(CLASS_NAMES)}
        store.save(5, model=split_model(model)[1], meta={**meta, "config": None})
        store.close()
    return folder


def changes_of(place, name):
    recipe, argument, keys, _ = JOBS[name]
    photos, database = str(place / "photos"), str(place / "two" / "embed")
    common = {"batch_size": 8, "compute_dtype": "float64"}
    if recipe == "search":
        # Of both the collection that two hosts have made.
        queries = database if name == "search" else photos
        common |= {"database": database, "queries": queries}
    else:
        common |= {"init_from": str(place / "tiny"), "data.root": photos}
    if name == "search_photos":
        common["score_normalization.training"] = database
    if argument == "folder":
        common["data.root"] += "/train"
    elif recipe != "search":
        common |= {"data.source": "folder", "data.split": "train"}
    return common | keys


def jobs(place, run):
    return [
        Job(recipe, argument, changes_of(place, name), str(place / run / name))
        for name, (recipe, argument, _, _) in JOBS.items()
    ]


@pytest.fixture(scope="module")
def together(place):
    """The reports of both hosts for each job, by its name."""
    reports, said = run_jobs(jobs(place, "two"), place)
    assert "top1" in said[0]
    assert "top1" not in said[1]
    return dict(zip(JOBS, zip(*reports, strict=True), strict=True))


@pytest.fixture(scope="module")
def alone(place):
    """What one process alone returns for each job, by its name."""
    with jax.enable_x64(True):
        return dict(zip(JOBS, map(run_alone, jobs(place, "one")), strict=True))


def listed(workdir):
    """The lines of all hosts' lists of unreadable photos."""
    files = workdir.rglob("skipped.txt")
    lines = sorted(line for path in files for line in path.read_text().splitlines())
    # What both meet in one step of a training each of them lists.
    return sorted(set(lines)) if workdir.name == "train" else lines


@pytest.mark.parametrize("name", JOBS)
def test_two_hosts_have_the_results_of_one(place, together, alone, name):
    first, second = together[name]
    assert second["results"] == {}
    found, expected = first["results"], alone[name]
    assert found.keys() == expected.keys()
    for key in expected.keys() - RATES:
        assert math.isclose(found[key], expected[key], rel_tol=1e-9, abs_tol=1e-12)
    saved = json.loads((place / "two" / name / "results.json").read_text())
    # The file also says in words where scores depart from published ones.
    assert {k: v for k, v in saved.items() if not isinstance(v, list)} == found
    assert not list((place / "two" / name / "hosts").rglob("results.json"))


@pytest.mark.parametrize("name", JOBS)
def test_each_host_reads_its_share_alone(together, name):
    first, second = together[name]
    times = JOBS[name][3]
    assert first["images"] + second["images"] == times * PHOTOS
    assert second["images"] >= times * 5
    if name == "embed":
        assert second["headers"] == 0  # process 0 knows what is new, and plans
        return
    assert first["headers"] + second["headers"] <= times * PHOTOS
    assert abs(first["headers"] - second["headers"]) <= times


@pytest.mark.parametrize("name", JOBS)
def test_what_no_host_can_read_is_listed_once(place, together, alone, name):
    assert listed(place / "two" / name) == listed(place / "one" / name)
    assert len(listed(place / "two" / name)) == (0 if name == "search" else len(BAD))


@pytest.mark.parametrize(
    ("name", "raw"),
    [("finetune", True), ("whiten", True), ("train", True), ("train", False)],
)
def test_two_hosts_save_the_model_of_one(place, together, alone, name, raw):
    """Of training its running average, too."""
    found, expected = (
        load_checkpoint(place / run / name, raw=raw).model for run in ("two", "one")
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9),
        found,
        expected,
    )
    assert not (place / "two" / name / "hosts" / "1" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("retrieval/per_query.csv", PHOTOS),
        ("search/results.csv", 10 * READABLE),
        ("search_photos/results.csv", 4 * READABLE),
    ],
)
def test_tables_are_those_of_one_line_by_line(place, together, alone, file, lines):
    tables = [(place / run / file).read_text() for run in ("two", "one")]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 1 + lines


@pytest.mark.parametrize(("name", "times"), [("search", 4), ("search_photos", 2)])
def test_each_host_reads_its_share_of_the_descriptors(together, name, times):
    """As queries, for their neighbours, and these themselves; with training, too."""
    first, second = (each["rows"] for each in together[name])
    if name == "search":
        assert first + second <= times * READABLE
        assert abs(first - second) <= times * 3
    else:
        assert (first, second) == (times * 8, times * 7)
