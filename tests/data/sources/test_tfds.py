import io
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.photos import plain_photo
from helpers.sources import open_photos

from multigrain_jax.data import cache
from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources import tfds as tfds_source
from multigrain_jax.data.sources.tfds import TfdsSource
from multigrain_jax.errors import InputError


class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "number": np.int64,
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for number in range(count):
            image = io.BytesIO(plain_photo(40 * number))
            yield number, {"image": image, "label": number % 2, "number": number}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = Tiny(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_dir


def test_a_prepared_set_gives_its_files_and_labels(prepared):
    source = open_photos(prepared, "train", source="tfds")
    assert len(source) == 6
    assert source.class_names == ["cat", "dog"]
    assert source.labels.dtype == np.int32
    files = {plain_photo(40 * number): number % 2 for number in range(6)}
    assert {source.read(i): int(source.labels[i]) for i in range(6)} == files
    assert prepared in source.describe(2)


def test_a_prepared_set_is_read_without_tensorflow(prepared):
    code = (
        "import sys\n"
        "from multigrain_jax.data.sources.tfds import TfdsSource\n"
        "assert TfdsSource(sys.argv[1], 'train').read(0)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    # Other tests of this process may have imported it.
    subprocess.run([sys.executable, "-c", code, str(prepared)], check=True)


def test_slices_and_pickling(prepared):
    source = TfdsSource(prepared, "train[:50%]")
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(i) for i in range(3)] == [source.read(i) for i in range(3)]
    np.testing.assert_array_equal(copy.labels, source.labels)


def test_labels_of_a_large_set_are_read_once(prepared, monkeypatch, cache_home, capsys):
    expected = TfdsSource(prepared, "train").labels
    monkeypatch.setattr(cache, "KEPT_FROM", 3)
    monkeypatch.setattr(tfds_source, "RECORDS_AT_ONCE", 4)
    np.testing.assert_array_equal(TfdsSource(prepared, "train").labels, expected)
    assert "reading the 6 labels" in capsys.readouterr().out
    np.testing.assert_array_equal(TfdsSource(prepared, "train").labels, expected)
    assert "reading" not in capsys.readouterr().out
    (kept,) = (cache_home / "multigrain_jax" / "labels").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    TfdsSource(prepared, "train")
    assert "reading the 6 labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "nope"}, "Unknown split 'nope'"),
        ({"label_key": "class"}, "'class' was expected, found"),
        ({"label_key": "number"}, "expected to be a ClassLabel"),
        ({"folder": "nowhere"}, "prepared by TFDS"),
    ],
)
def test_what_is_not_there_is_refused(prepared, changes, message):
    options = {"folder": prepared, "split": "train"} | changes
    with pytest.raises(InputError, match=message):
        TfdsSource(options.pop("folder"), options.pop("split"), **options)


def test_a_damaged_record_is_an_unreadable_image(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    source = TfdsSource(copy, "test")
    (path,) = copy.glob("*test.array_record*")
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for index in range(2):
        assert why_unreadable(source, index).startswith("damaged record: ")
