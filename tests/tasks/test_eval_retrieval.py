"""The task against photos one by one, through the public interface."""

import csv
import errno
import html
import json
import shutil
from functools import partial

import numpy as np
import pytest
from helpers.configs import small_eval_config
from helpers.descriptors import embeddings
from PIL import Image

from configs import eval_retrieval
from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation import retrieval
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.pages import page
from multigrain_jax.tasks.eval_retrieval import run


def make_config(name, root, checkpoint, **changes):
    get_config = partial(eval_retrieval.get_config, name)
    return small_eval_config(get_config, root, checkpoint, **changes)


def average_precision(query, rows, labels, *, first=None):
    """Trapezoid, of one query among the others."""
    asked = rows[query] if first is None else first
    others = [i for i in range(len(rows)) if i != query]
    others.sort(key=lambda i: -float(asked @ rows[i]))
    ranks = [r for r, i in enumerate(others) if labels[i] == labels[query]]
    parts = [((n / r if r else 1) + (n + 1) / (r + 1)) / 2 for n, r in enumerate(ranks)]
    return sum(parts) / len(ranks)


def expand(query, rows, *, count, alpha):
    others = [i for i in range(len(rows)) if i != query]
    others.sort(key=lambda i: -float(rows[query] @ rows[i]))
    total = rows[query] + sum(
        float(rows[query] @ rows[i]) ** alpha * rows[i] for i in others[:count]
    )
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(
    ("sizes", "mode"), [((48,), "square"), ((48,), "rect"), ((40, 56), "rect")]
)
def test_a_folder_scores_as_its_photos_one_by_one(
    objects, tiny_checkpoint, tmp_path, sizes, mode
):
    config = make_config(
        "folder",
        objects,
        tiny_checkpoint,
        test_size=sizes if len(sizes) > 1 else sizes[0],
        test_mode=mode,
        pooling_exponent=2.0,
    )
    results = run(config, tmp_path)
    paths = sorted(objects.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    rows = embeddings(tiny_checkpoint, paths, sizes=sizes, mode=mode, exponent=2.0)
    expected = [average_precision(n, rows, labels) for n in range(len(paths))]
    assert 0.2 < np.mean(expected) < 0.9
    assert results["folder/all/map"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert results["folder/all/num_without_positives"] == 0
    assert results["num_queries"] == results["num_database"] == len(paths)
    assert results["num_unreadable"] == 0
    saved = json.loads((tmp_path / "results.json").read_text())
    (line,) = saved.pop("differs_by")
    assert "--config.data.training=FOLDER" in line
    assert saved == results
    with open(tmp_path / "per_query.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["query"] for row in table] == [
        str(path.relative_to(objects)) for path in paths
    ]
    found = [float(row["ap"]) for row in table]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_tables_and_pages_that_cannot_be_written_cost_no_score(
    objects, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(page, "write_atomically", full)
    monkeypatch.setattr(retrieval, "write_table", full)
    results = run(make_config("folder", objects, tiny_checkpoint), tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved.items() > results.items()
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("WARNING")]
    assert ["report.html" in line for line in failed] == [False, True]
    assert all("cannot be written: No space left" in line for line in failed)


def test_queries_are_expanded_without_themselves(objects, tiny_checkpoint, tmp_path):
    config = make_config("folder", objects, tiny_checkpoint)
    config.query_expansion.update(num_neighbours=3, alpha=2.0)
    results = run(config, tmp_path)
    paths = sorted(objects.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    rows = embeddings(tiny_checkpoint, paths, sizes=(48,))
    expected = [
        average_precision(n, rows, labels, first=expand(n, rows, count=3, alpha=2.0))
        for n in range(len(paths))
    ]
    assert results["folder/all/map"] == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.fixture
def holidays(objects, tmp_path):
    """Three groups of two photos; the query of the first lies on its side."""
    root = tmp_path / "holidays"
    (root / "jpg").mkdir(parents=True)
    for group, kind in enumerate(("ant", "bee", "cow")):
        for number in range(2):
            with Image.open(objects / kind / f"{number}.png") as photo:
                turned = photo.rotate(90 * (group + number == 0), expand=True)
                turned.save(root / "jpg" / f"{1000 + group}{number:02d}.jpg")
    (tmp_path / "rotations.yaml").write_text('{\n"100000.jpg": 90,\n}\n')
    return root


def test_holidays_are_turned_upright(holidays, tiny_checkpoint, tmp_path):
    paths = sorted((holidays / "jpg").iterdir())
    labels = [path.name[:4] for path in paths]
    rows = embeddings(tiny_checkpoint, paths, sizes=(48,))
    rows[0] = embeddings(tiny_checkpoint, paths[:1], sizes=(48,), turn=90)[0]
    expected = np.mean([average_precision(n, rows, labels) for n in (0, 2, 4)])
    config = make_config("holidays", holidays, tiny_checkpoint)
    config.data.rotations = str(tmp_path / "rotations.yaml")
    config.expected_counts.update(images=6, groups=3)
    results = run(config, tmp_path / "out")
    assert results["holidays/all/map"] == pytest.approx(expected, abs=1e-4)
    assert results["num_queries"] == 3


def test_copies_of_a_folder_s_photos_are_looked_for(objects, tiny_checkpoint, tmp_path):
    config = make_config("copies", objects, tiny_checkpoint, test_mode="square")
    results = run(config, tmp_path / "out")
    # Four references and four strangers, by six edits, among eight photos.
    assert (results["num_queries"], results["num_database"]) == (48, 8)
    assert results["copies/raw/num_without_positives"] == 24
    assert 0 < results["copies/raw/micro_ap"] < 1
    # Compression changes least of noise.
    jpeg, strong = (results[f"copies/{n}/recall_at_1"] for n in ("jpeg_10", "strong"))
    assert jpeg >= strong
    with open(tmp_path / "out" / "per_query.csv", newline="") as file:
        asked = {row["query"] for row in csv.DictReader(file)}
    assert {name.rpartition(" (")[2] for name in asked} >= {"overlay)", "strong)"}


def test_photos_that_lie_there_twice_are_told_and_change_no_score(
    objects, tiny_checkpoint, tmp_path, capsys
):
    twice = tmp_path / "twice"
    shutil.copytree(objects, twice)
    shutil.copytree(objects, twice / "zz")
    scores = {}
    for root in (objects, twice):
        config = make_config("copies", root, tiny_checkpoint, test_mode="square")
        scores[root] = run(config, tmp_path / f"out of {root.name}")
    told = [x for x in capsys.readouterr().out.splitlines() if "byte for byte" in x]
    assert len(told) == 1 and f"{twice}: passed over 12 photos that are an" in told[0]
    out = tmp_path / "out of twice" / "results.json"
    assert json.loads(out.read_text())["passed_over"] == told
    for result in scores.values():
        del result["seconds"]
    assert scores[twice] == pytest.approx(scores[objects], abs=1e-6)


def test_what_the_scores_leave_out_and_what_lowers_them_is_told(
    holidays, tiny_checkpoint, tmp_path, capsys
):
    config = make_config("holidays", holidays, tiny_checkpoint)
    config.expected_counts.update(images=6, groups=3)
    run(config, tmp_path / "a")
    lines = capsys.readouterr().out.splitlines()
    assert "holidays/all: 0 of 3 queries have no positive" in lines
    saved = json.loads((tmp_path / "a" / "results.json").read_text())
    told = {"lowered_by": "lowered", "raised_by": "raised"}
    page = html.unescape((tmp_path / "a" / "report.html").read_text())
    for way, word in told.items():
        for line in saved[way]:
            assert f"these scores of holidays are {word}: {line}" in lines
            assert f"These scores of holidays are {word}: {line}." in page
    # Of 500 pixels, whitened, upright; and there are fewer of them.
    assert [len(saved[way]) for way in told] == [3, 1]
    assert saved["raised_by"][0].startswith("6 images take part in place of 1491")


def test_an_unreadable_photo_is_listed_and_not_found(
    holidays, tiny_checkpoint, tmp_path
):
    (holidays / "jpg" / "100001.jpg").write_bytes(b"nothing")
    (holidays / "jpg" / "100100.jpg").write_bytes(b"nothing")
    config = make_config("holidays", holidays, tiny_checkpoint, test_size=(40, 48))
    config.expected_counts.update(images=6, groups=3)
    results = run(config, tmp_path / "out")
    assert results["num_unreadable"] == 2
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "2 of 6 photos cannot be read" in saved["lowered_by"][0]
    assert results["holidays/all/map"] <= 1 / 3
    listed = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert len(listed) == 2
    with open(tmp_path / "out" / "per_query.csv", newline="") as file:
        assert [float(row["ap"]) for row in csv.DictReader(file)][:2] == [0, 0]


@pytest.mark.parametrize("num_components", [None, 7])
def test_a_whitening_can_be_left_out(
    objects, tiny_checkpoint, tmp_path, num_components
):
    """The plain checkpoint, and the same with a whitening that changes the ranking."""
    plain = load_checkpoint(tiny_checkpoint)
    model = create_model(
        "tiny", num_classes=3, seed=2, whitened=True, num_components=num_components
    )
    _, variables = split_model(model)
    kernel = np.asarray(variables.params["classifier"]["kernel"])
    item = {
        **plain.model,
        "params": {
            **plain.model["params"],
            "classifier": {"kernel": kernel, "bias": np.zeros(3, np.float32)},
        },
    }
    rng = np.random.default_rng(0)
    item["whitening"] = {
        name: rng.normal(size=np.shape(value)).astype(np.float32)
        for name, value in variables.whitening.items()
    }
    store = CheckpointStore(tmp_path / "whitened")
    store.save(0, model=item, meta=plain.meta)
    store.close()

    def score(checkpoint, out, **changes):
        config = make_config("folder", objects, checkpoint, **changes)
        return run(config, tmp_path / out)["folder/all/map"]

    expected = score(tiny_checkpoint, "a")
    whitened = tmp_path / "whitened"
    assert score(whitened, "b", use_whitening=False) == expected
    assert score(whitened, "c") != expected
    with pytest.raises(InputError, match="has no whitening"):
        score(tiny_checkpoint, "d", use_whitening=False)


def test_all_problems_are_listed_at_once(objects, tiny_checkpoint, tmp_path):
    config = make_config(
        "folder",
        objects,
        tiny_checkpoint,
        test_size=(20, 48, 48),
        pooling_exponent=(2.0, 3.0),
    )
    config.query_expansion.num_neighbours = -1
    config.score_normalization.num_neighbours = 0
    config.score_normalization.reduction = "median"
    config.data.root = None
    with pytest.raises(InputError) as caught:
        run(config, tmp_path)
    for line in (
        "data.root: found nothing",
        "test_size: found 20, expected at least 32",
        "test_size: found (20, 48, 48), expected different ones",
        "pooling_exponent: found (2.0, 3.0), expected one",
        "query_expansion.num_neighbours: found -1",
        "score_normalization.num_neighbours: found 0, expected at least 1",
        "score_normalization.num_neighbours: found 0 without data.training, by which",
        "score_normalization.reduction: found 'median', expected one of nth, mean",
    ):
        assert line in str(caught.value)


def test_each_benchmark_has_its_own_keys():
    config = eval_retrieval.get_config("copydays").lock()
    photos = {"background", "decoding", "depth", "exclude", "max_megapixels"}
    files = {"distractor_list", "distractors", "root"}
    assert set(config.data) == files | photos
    assert config.expected_counts.to_dict() == {
        "originals": 157,
        "strong": 229,
        "distractors": 10_000,
    }
    with pytest.raises(AttributeError, match="distractors"):
        config.data.distractor = "one letter less"
    with pytest.raises(InputError, match="expected one of holidays"):
        eval_retrieval.get_config("holiday")
