import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import noise_photo
from PIL import Image

from multigrain_jax.data.crops import eval_transform, resized_size
from multigrain_jax.data.decoding import PLAIN, VIEWER, decode, encoded_size
from multigrain_jax.data.eval_batches import (
    EvalPlan,
    at_other_size,
    make_eval_batches,
    measured_sizes,
    plan_batches,
    plan_ordered_batches,
    without_first,
)
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource

SIDEWAYS = 6  # EXIF: the photo lies on its side


photo = partial(noise_photo, brightest=256)


def make_source(folder, sizes):
    files = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.jpg"
        photo(number, size).save(path)
        files.append(ImageFile(str(path), number % 3))
    return FileSource(
        files,
        class_names=["a", "b", "c"],
        decoding=VIEWER,
        local_cache_dir=None,
    )


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path, [(40, 30)] * 7)


@pytest.fixture
def mixed(tmp_path):
    sizes = [(40, 30), (30, 40), (64, 64), (100, 20), (33, 50), (80, 61), (20, 90)]
    return make_source(tmp_path, sizes * 3)


def plan(source, **changes):
    options = {
        "test_size": 16,
        "test_mode": "square",
        "batch_size": 4,
        "smallest_side": 1,
        "timeout_s": 600.0,
    }
    return plan_batches(source, **(options | changes))


def read(source, planned, *, num_workers=0):
    reading = Reading(num_workers=num_workers, prefetch=4, timeout_s=600.0)
    return make_eval_batches(source, planned, reading=reading)


def check_rows(source, batch, test_mode):
    """Every row against the plain transform of its photo."""
    for row in np.flatnonzero(batch["mask"]):
        index = int(batch["index"][row])
        upright = decode(source.read(index), decoding=VIEWER)
        want = np.asarray(eval_transform(upright, 16, test_mode, smallest_side=1))
        height, width = want.shape[:2]
        if test_mode == "rect":
            assert batch["size"][row].tolist() == [height, width]
        got = batch["image"][row]
        np.testing.assert_array_equal(got[:height, :width], want)
        assert not got[height:].any()
        assert not got[:, width:].any()
        assert batch["label"][row] == source.labels[index]


def test_every_image_comes_once_and_the_last_batch_is_padded(source):
    got = list(read(source, plan(source)))
    assert [batch["mask"].tolist() for batch in got] == [
        [True] * 4,
        [True, True, True, False],
    ]
    indices = np.concatenate([batch["index"] for batch in got])
    assert indices.tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    for batch in got:
        assert batch["image"].shape == (4, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        assert {batch["label"].dtype, batch["index"].dtype} == {np.dtype(np.int32)}
        assert batch["mask"].dtype == batch["bad"].dtype == np.bool_
        assert not batch["bad"].any()
        check_rows(source, batch, "square")
    assert not got[1]["image"][3].any()


def test_rectangular_images_share_canvases(mixed):
    planned = plan(mixed, test_mode="rect")
    got = list(read(mixed, planned))
    indices = np.concatenate([batch["index"] for batch in got])
    assert sorted(indices[indices >= 0]) == list(range(21))
    assert len({batch["image"].shape for batch in got}) <= 8
    assert sum(not batch["mask"].all() for batch in got) <= 2
    for batch in got:
        assert batch["size"].dtype == np.int32
        check_rows(mixed, batch, "rect")
        # Padding rows say that all of the canvas is valid: no division by nothing.
        assert np.all(batch["size"][~batch["mask"]] == batch["image"].shape[1:3])


def test_the_plan_says_how_much_is_wasted(mixed):
    planned = plan(mixed, test_mode="rect")
    batches = list(read(mixed, planned))
    used = sum(batch["size"][batch["mask"]].prod(axis=1).sum() for batch in batches)
    computed = sum(np.prod(batch["image"].shape[:3]) for batch in batches)
    assert planned.wasted_fraction == pytest.approx(1 - used / computed)
    assert f"{planned.wasted_fraction:.1%} of the pixels wasted" in str(planned)
    assert "21 images" in str(planned)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_photo_on_its_side_is_planned_upright(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    path = tmp_path / name
    photo(0, (40, 30)).save(path, exif=exif)
    with path.open("rb") as file:
        assert encoded_size(file, decoding=VIEWER) == (30, 40)
    with path.open("rb") as file:
        # Pillow turns a TIFF whether it is asked to or not.
        assert encoded_size(file, PLAIN) == decode(path.read_bytes(), PLAIN).size
    source = FileSource(
        [ImageFile(str(path), 0)],
        class_names=["a"],
        decoding=VIEWER,
        local_cache_dir=None,
    )
    (batch,) = read(source, plan(source, test_mode="rect"))
    assert batch["image"].shape == (4, 16, 12, 3)
    assert not batch["bad"].any()
    check_rows(source, batch, "rect")


def test_extreme_proportions_keep_the_smallest_side(tmp_path):
    source = make_source(tmp_path, [(400, 5)])
    planned = plan(source, test_mode="rect", batch_size=1, smallest_side=6)
    (batch,) = read(source, planned)
    assert batch["image"].shape == (1, 6, 16, 3)
    (batch,) = read(source, plan(source, test_mode="rect", batch_size=1))
    assert batch["image"].shape == (1, 1, 16, 3)


def test_chosen_images(source):
    (batch,) = read(source, plan(source, indices=[5, 2]))
    assert batch["index"].tolist() == [5, 2, -1, -1]


def test_no_images_are_no_batches(source):
    for test_mode in ("square", "rect"):
        nothing = plan(source, indices=[], test_mode=test_mode)
        assert list(read(source, nothing)) == []


@pytest.mark.parametrize("test_mode", ["square", "rect"])
def test_nothing_stands_in_for_an_unreadable_image(source, tmp_path, test_mode):
    (tmp_path / "1.jpg").write_bytes(b"")
    planned = plan(source, batch_size=8, test_mode=test_mode)
    (batch,) = read(source, planned)
    assert batch["bad"].tolist() == [False, True] + [False] * 6
    assert batch["index"][1] == 1
    assert batch["label"][1] == source.labels[1]
    assert not batch["image"][1].any()


def test_a_file_that_changes_after_the_plan_is_bad_and_not_cut(source, tmp_path):
    planned = plan(source, batch_size=8, test_mode="rect")
    photo(0, (30, 40)).save(tmp_path / "2.jpg")
    (batch,) = read(source, planned)
    assert np.flatnonzero(batch["bad"]).tolist() == [2]


def test_a_header_is_read_without_the_body(tmp_path):
    data = io.BytesIO()
    photo(0, (640, 480)).save(data, "JPEG")
    assert encoded_size(io.BytesIO(data.getvalue()[:2000]), VIEWER) == (640, 480)


@pytest.mark.slow
def test_reading_processes_change_nothing(mixed):
    planned = plan(mixed, batch_size=2, test_mode="rect")
    want = list(read(mixed, planned))
    got = list(read(mixed, planned, num_workers=2))
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert type(one[name]) is np.ndarray
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_an_iterator_can_be_closed_early(source):
    iterator = read(source, plan(source, batch_size=1))
    next(iterator)
    iterator.close()
    assert list(iterator) == []


@pytest.mark.parametrize("test_mode", ["square", "rect"])
@pytest.mark.parametrize("test_size", [40, 63, 97])
def test_the_same_batches_at_another_size(mixed, test_mode, test_size):
    whole = plan(mixed, test_mode=test_mode, test_size=64)
    planned = without_first(whole, 3)
    other = at_other_size(planned, test_size=test_size)
    assert other.test_size == test_size
    np.testing.assert_array_equal(other.rows, planned.rows)
    # A run that goes on with a part of the batches makes the same numbers.
    shapes = at_other_size(whole, test_size=test_size).shapes
    np.testing.assert_array_equal(other.shapes, shapes[-len(planned) :])
    for batch in read(mixed, other):
        assert not batch["bad"].any()
        for row in np.flatnonzero(batch["mask"]):
            image = decode(mixed.read(int(batch["index"][row])), VIEWER)
            expected = np.asarray(
                eval_transform(image, test_size, test_mode, smallest_side=1)
            )
            height, width = expected.shape[:2]
            corner = batch["image"][row][:height, :width]
            np.testing.assert_array_equal(corner, expected)
    nothing = plan(mixed, test_mode=test_mode, indices=[])
    assert len(at_other_size(nothing, test_size=test_size)) == 0


def test_every_proportion_fits_the_canvas_of_another_size():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        width, height = (int(side) for side in rng.integers(1, 400, 2))
        one, other = (int(size) for size in rng.integers(32, 500, 2))
        side = int(rng.choice([1, 17, 32]))
        first, second = (
            resized_size(width, height, test_size=size, mode="rect", smallest_side=side)
            for size in (one, other)
        )
        planned = EvalPlan(
            np.zeros((1, 1), np.int32),
            np.array([first[::-1]], np.int32),
            0.0,
            one,
            "rect",
            side,
        )
        canvas = at_other_size(planned, test_size=other).shapes[0]
        assert (np.array(second[::-1]) <= canvas).all()
        # And not much is wasted.
        scale = max(1, other / one)
        assert (canvas - second[::-1] <= 2 * scale + 1).all() or side > 1


def test_sizes_that_are_known_are_not_read_again(mixed, monkeypatch):
    Path(mixed.describe(3)).write_bytes(b"")
    named = {"test_size": 24, "smallest_side": 1, "timeout_s": 600.0}
    measured = measured_sizes(mixed, np.arange(len(mixed)), **named)
    assert measured.shape == (21, 2) and not measured[3].any()
    expected = plan(mixed, test_size=24, test_mode="rect")
    monkeypatch.setattr(mixed, "open", None)
    found = plan(mixed, test_size=24, test_mode="rect", measured=measured)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.shapes, expected.shapes)
    assert found.wasted_fraction == expected.wasted_fraction
    order = np.arange(len(mixed))[::-1]
    ordered = plan_ordered_batches(
        order, test_size=24, batch_size=4, smallest_side=1, measured=measured[order]
    )
    np.testing.assert_array_equal(ordered.rows.reshape(-1)[:21], order)
    assert (ordered.shapes >= 24).any(axis=1).all()
