import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from helpers.photos import encode, noise_photo
from PIL import Image

from multigrain_jax.data import reading
from multigrain_jax.data.crops import random_crop_box, resize_crop
from multigrain_jax.data.decoding import VIEWER, decode, decode_reduced
from multigrain_jax.data.reading import Reading, why_unreadable
from multigrain_jax.data.repeated import KnownInstances, RepeatedStream
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.train_batches import HOST_AUGMENTATIONS, make_train_batches
from multigrain_jax.errors import InputError
from multigrain_jax.ops.color import AUGMENTATIONS

BATCH_SIZE = 8


photo = partial(noise_photo, size=(40, 30), brightest=256)


def make_source(folder, contents):
    files = []
    for number, data in enumerate(contents):
        path = folder / f"{number}.jpg"
        path.write_bytes(data)
        files.append(ImageFile(str(path), number % 3))
    return FileSource(
        files,
        class_names=["a", "b", "c"],
        decoding=VIEWER,
        local_cache_dir=None,
    )


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path, [encode(photo(n), "JPEG") for n in range(7)])


def make_stream(source, **changes):
    options = {"num_repeats": 3, "epoch_len_factor": 6.0, "batch_size": BATCH_SIZE}
    return RepeatedStream(num_images=len(source), seed=1, **(options | changes))


def batches(source, stream=None, *, num_workers=0, prefetch=3, **changes):
    options = {
        "train_size": 16,
        "augmentation": "full",
        "crop_area_min": 0.08,
        "crop_resize": "pillow",
        "seed": 5,
        "first_step": 0,
        "num_steps": 6,
        "batch_slice": slice(0, BATCH_SIZE),
        "reading": Reading(num_workers, prefetch, timeout_s=600.0),
    }
    iterator = make_train_batches(
        source, stream or make_stream(source), **(options | changes)
    )
    return list(iterator)


def assert_equal_batches(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert type(one[name]) is np.ndarray
            np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("augmentation", ["full", *HOST_AUGMENTATIONS])
def test_batches_equal_a_plain_loop_over_samples(source, augmentation):
    stream = make_stream(source)
    for step, batch in enumerate(batches(source, augmentation=augmentation)):
        ids = stream.sample_ids(step)
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (BATCH_SIZE, 16, 16, 3)
        np.testing.assert_array_equal(batch["instance_id"], ids)
        np.testing.assert_array_equal(batch["image_index"], ids)
        np.testing.assert_array_equal(batch["label"], source.labels[ids])
        assert {batch[name].dtype for name in ("label", "instance_id")} == {
            np.dtype(np.int32)
        }
        assert set(batch["bad_index"].tolist()) == {-1}
        for row, index in enumerate(ids):
            position = step * BATCH_SIZE + row
            rng = np.random.Generator(np.random.Philox(key=(5 << 64) | position))
            image = decode(source.read(int(index)), VIEWER)
            box = random_crop_box(rng, *image.size, area_min=0.08)
            crop = resize_crop(image, box, 16)
            if augmentation != "full":
                crop = HOST_AUGMENTATIONS[augmentation](rng, crop)
            np.testing.assert_array_equal(batch["image"][row], np.asarray(crop))


@pytest.mark.parametrize("augmentation", ["full", "AA"])
def test_simd_changes_the_resize_alone(source, augmentation):
    pytest.importorskip("cykooz_resizer")
    options = {"augmentation": augmentation, "train_size": 24}
    simd = batches(source, crop_resize="simd", **options)
    assert_equal_batches(
        batches(source, crop_resize="simd", num_workers=2, **options), simd
    )
    for got, want in zip(simd, batches(source, **options), strict=True):
        np.testing.assert_array_equal(got["instance_id"], want["instance_id"])
        difference = np.abs(got["image"].astype(int) - want["image"])
        if augmentation == "full":
            assert 0 < difference.max() <= 2
        else:
            # Operations such as solarize carry a difference of one far.
            assert 0 < difference.mean() < 3


def test_every_distinct_image_of_a_batch_is_decoded_once(source, monkeypatch):
    decoded = []

    def counted(data, decoding, **options):
        decoded.append(data)
        return decode_reduced(data, decoding, **options)

    monkeypatch.setattr(reading, "decode_reduced", counted)
    stream = make_stream(source, epoch_len_factor=3.0)
    got = batches(source, stream, num_steps=2)
    assert len(decoded) == sum(len(set(b["instance_id"].tolist())) for b in got)


def test_a_resumed_run_sees_the_same_batches(source):
    whole = batches(source)
    for first in (1, 4):
        rest = batches(source, first_step=first, num_steps=6 - first)
        assert_equal_batches(rest, whole[first:])


@pytest.mark.parametrize("augmentation", ["full", "copies"])
def test_host_slices_make_up_the_batch(source, augmentation):
    whole = batches(source, augmentation=augmentation)
    parts = [
        batches(source, augmentation=augmentation, batch_slice=cut)
        for cut in (slice(0, 3), slice(3, 4), slice(4, 8))
    ]
    for step, batch in enumerate(whole):
        for name in ("image", "label", "instance_id"):
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])


def test_seed_and_position_change_the_crops(source):
    first, other = batches(source, num_steps=1), batches(source, num_steps=1, seed=6)
    assert (first[0]["image"] != other[0]["image"]).any()
    rows = first[0]["image"].reshape(BATCH_SIZE, -1)
    assert len(np.unique(rows, axis=0)) == BATCH_SIZE


@pytest.mark.parametrize("area_min", [1.0, 0.5])
def test_the_smallest_area_is_respected(tmp_path, area_min):
    image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    source = make_source(tmp_path, [encode(image)])
    stream = make_stream(source, epoch_len_factor=100.0)
    spans = [
        int(crop.max()) - int(crop.min())
        for batch in batches(source, stream, crop_area_min=area_min)
        for crop in batch["image"]
    ]
    # 252 grey levels over the whole width; a crop of half the area may be narrow.
    assert min(spans) > 252 * np.sqrt(area_min * 3 / 4) * 0.9


@pytest.mark.slow
def test_reading_processes_change_nothing(source, tmp_path):
    (tmp_path / "4.jpg").write_bytes(b"broken")
    stream = make_stream(source)
    made = partial(batches, source, stream, augmentation="copies")
    whole = made()
    assert_equal_batches(made(num_workers=2), whole)
    resumed = made(num_workers=1, first_step=3, num_steps=3)
    assert_equal_batches(resumed, whole[3:])


FAULTS = {
    "empty": b"",
    "not an image": b"<html>not found</html>",
    "truncated": encode(photo(0, size=(200, 150)), "JPEG")[:2000],
    "header alone": encode(photo(0), "JPEG")[:40],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unreadable_image_is_replaced_by_another_as_itself(tmp_path, fault):
    contents = [encode(photo(n), "JPEG") for n in range(7)]
    contents[4] = FAULTS[fault]
    source = make_source(tmp_path, contents)
    stream = make_stream(source)
    got = batches(source)
    seen = 0
    for step, batch in enumerate(got):
        ids = stream.sample_ids(step)
        bad = ids == 4
        seen += bad.any()
        assert (4 in batch["bad_index"]) == bad.any()
        np.testing.assert_array_equal(batch["instance_id"][~bad], ids[~bad])
        assert 4 not in batch["instance_id"]
        np.testing.assert_array_equal(
            batch["label"], source.labels[batch["instance_id"]]
        )
    assert seen
    # The same stand-in every time, and every time again.
    stand_ins = {
        index
        for step, batch in enumerate(got)
        for index in batch["instance_id"][stream.sample_ids(step) == 4].tolist()
    }
    assert len(stand_ins) == 1
    assert_equal_batches(batches(source), got)
    assert why_unreadable(source, 4)
    assert why_unreadable(source, 3) is None


def test_a_missing_file_is_replaced_too(source, tmp_path):
    (tmp_path / "2.jpg").unlink()
    assert any(2 in batch["bad_index"] for batch in batches(source))
    assert "No such file" in str(why_unreadable(source, 2))


def test_unusual_images_are_trained_on(tmp_path):
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    palette = photo(1).convert("P")
    contents = [
        encode(photo(0).convert("CMYK"), "JPEG"),
        encode(photo(1).convert("L"), "JPEG"),
        encode(palette, transparency=bytes(range(256))),
        encode(Image.fromarray(values)),
        encode(photo(2, size=(1, 1))),
        encode(photo(3).convert("RGBA"), "WEBP"),
        encode(photo(4, size=(1, 300))),
    ]
    source = make_source(tmp_path, contents)
    for batch in batches(source):
        assert set(batch["bad_index"].tolist()) == {-1}


def test_a_lost_data_set_ends_in_an_error_that_names_files(source, tmp_path):
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match=r"in a row could not be read.*\n.*\.jpg"):
        batches(source)


def test_what_the_host_flips_the_device_does_not():
    not_there = {n for n, row in AUGMENTATIONS.items() if not row.flip_on_device}
    assert not_there == set(HOST_AUGMENTATIONS)


@pytest.mark.slow
def test_the_loader_starts_no_accelerator():
    # Reading processes import this and nothing else of the package.
    code = (
        "import sys, multigrain_jax.data.skips\n"
        "ours = [m for m in sys.modules if m.startswith('multigrain_jax.')]\n"
        "parts = {m.split('.')[1] for m in ours}\n"
        "known = {'buckets', 'data', 'errors', 'files', 'growing_file'}\n"
        "known |= {'remedies', 'terminal'}\n"
        "assert parts == known, parts\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
        "if 'jax' in sys.modules:\n"
        "    from jax._src import xla_bridge\n"
        "    assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_known_instances_are_told_beside_the_images(source, tmp_path):
    (tmp_path / "4.jpg").write_bytes(b"broken")
    source.instances = np.array([3, 0, 3, 1, 2, 0, 0], np.int32)
    known = KnownInstances(source.instances, photos_per_instance=2)
    stream = make_stream(source, num_repeats=2, known=known)
    got = batches(source, stream)
    for step, batch in enumerate(got):
        ids = stream.sample_ids(step)
        good = ids != 4
        np.testing.assert_array_equal(batch["image_index"][good], ids[good])
        # A stand-in is of its own instance.
        index = batch["image_index"]
        np.testing.assert_array_equal(batch["instance_id"], source.instances[index])
        np.testing.assert_array_equal(batch["label"], source.labels[index])
    parts = [
        batches(source, stream, batch_slice=cut, first_step=2, num_steps=4)
        for cut in (slice(0, 3), slice(3, 8))
    ]
    for step, batch in enumerate(got[2:]):
        for name in ("image", "label", "instance_id", "image_index"):
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])
