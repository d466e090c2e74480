"""The same photos as files, rows, members and records are the same training."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.photos import CLASS_NAMES, encode, noise_photo
from helpers.shards import write_parquet, write_tar
from helpers.sources import open_photos

from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.train_batches import make_train_batches

COUNT, BATCH_SIZE, STEPS = 14, 8, 6


class Records(tfds.core.GeneratorBasedBuilder):
    """The photos in their order, which TFDS otherwise shuffles."""

    VERSION = tfds.core.Version("1.0.0")
    rows: Sequence[tuple[bytes, int]] = ()

    def _info(self):
        image = tfds.features.Image(encoding_format="jpeg")
        label = tfds.features.ClassLabel(names=list(CLASS_NAMES))
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(
            builder=self, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, (photo, label) in enumerate(self.rows):
            yield number, {"image": io.BytesIO(photo), "label": label}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Each format -> where the photos lie in it."""
    root = tmp_path_factory.mktemp("formats")
    sizes = [(40, 30), (30, 44), (64, 64)]
    photos = [
        encode(noise_photo(n, sizes[n % 3]), "JPEG", quality=90) for n in range(COUNT)
    ]
    photos[5] = b"no photo"
    labels = [3 * n // COUNT for n in range(COUNT)]
    for n, (photo, label) in enumerate(zip(photos, labels, strict=True)):
        path = root / "folder" / CLASS_NAMES[label] / f"{n:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    parts = [slice(0, 5), slice(5, COUNT)]
    for number, part in enumerate(parts):
        write_parquet(
            root / "parquet" / f"train-{number}.parquet",
            photos[part],
            labels[part],
            class_names=CLASS_NAMES,
            row_group_size=4,
        )
        members = []
        for n in range(COUNT)[part]:
            members.append((f"{n}.cls", CLASS_NAMES[labels[n]].encode()))
            members.append((f"{n}.jpg", photos[n]))
        write_tar(root / "webdataset" / f"train-{number}.tar", members)
    Records.rows = list(zip(photos, labels, strict=True))
    builder = Records(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    return {
        "folder": root / "folder",
        "parquet": root / "parquet",
        "webdataset": root / "webdataset",
        "tfds": builder.data_dir,
    }


def train_batches(source, *, num_workers=0, first_step=0, rows=slice(0, BATCH_SIZE)):
    stream = RepeatedStream(
        num_images=len(source),
        num_repeats=3,
        epoch_len_factor=3.0,
        batch_size=BATCH_SIZE,
        seed=1,
    )
    batches = make_train_batches(
        source,
        stream,
        train_size=16,
        augmentation="full",
        crop_area_min=0.08,
        crop_resize="pillow",
        seed=5,
        first_step=first_step,
        num_steps=STEPS - first_step,
        batch_slice=rows,
        reading=Reading(num_workers, 2, 600.0),
    )
    return [{**batch} for batch in batches]


def assert_equal(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "tfds"])
def test_every_format_gives_the_same_ids_and_batches(roots, kind):
    folder = open_photos(roots["folder"], "train")
    source = open_photos(roots[kind], "train", source=kind)
    assert source.class_names == folder.class_names == list(CLASS_NAMES)
    np.testing.assert_array_equal(source.labels, folder.labels, strict=True)
    whole = train_batches(folder)
    # The photo that is none has the same stand-in everywhere.
    assert {5} == {int(i) for batch in whole for i in batch["bad_index"]} - {-1}
    assert_equal(train_batches(source), whole)
    # Resumed in the middle, and of two hosts the second.
    assert_equal(train_batches(source, first_step=4), whole[4:])
    halves = train_batches(source, rows=slice(4, 8))
    for half, batch in zip(halves, whole, strict=True):
        np.testing.assert_array_equal(half["image"], batch["image"][4:])
    plans = [
        plan_batches(
            each,
            test_size=32,
            test_mode="rect",
            batch_size=4,
            smallest_side=8,
            timeout_s=60.0,
        )
        for each in (source, folder)
    ]
    np.testing.assert_array_equal(plans[0].rows, plans[1].rows)
    evaluated = [
        list(make_eval_batches(each, plans[1], reading=Reading(0, 2, 60.0)))
        for each in (source, folder)
    ]
    assert_equal(*evaluated)


def test_a_reading_process_reads_large_files_as_threads_do(roots):
    source = open_photos(roots["parquet"], "train", source="parquet")
    assert_equal(train_batches(source, num_workers=1), train_batches(source))
