"""Labels of photos, by which they may be a pair or not."""

from pathlib import Path

import numpy as np
import pytest
from helpers.descriptor_folders import embed
from helpers.photos import write_noise_photos

from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.joined import JoinedIndex
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.embed_record import ADDED_KEYS
from multigrain_jax.tasks.pair_rules import labels_of_rule
from multigrain_jax.workdir import write_config

DATA = {"root": None, "val_fraction": 0.4}


def embedded(workdir, paths):
    """Descriptors of files with numbers that `embed` could read."""
    images = [ImageStamp(str(path), 101, 5) for path in paths]
    embed(workdir / "descriptors", images)
    return DescriptorIndex.open(workdir)


def paths_of(joined):
    return joined.paths(np.arange(len(joined)))


def test_folders_are_those_that_photos_lie_in(tmp_path):
    names = ("a/1", "a/2", "a/b/1", "b/1", "b/2")
    one = embedded(tmp_path / "one", (f"/p/{name}" for name in names))
    two = embedded(tmp_path / "two", ("/p/a/3", "/q/a/1"))
    joined = JoinedIndex(one, two)
    assert labels_of_rule(joined, "any", DATA) is None
    for rule in ("same_folder", "other_folder"):
        labels = labels_of_rule(joined, rule, DATA)
        assert labels is not None and labels.dtype == np.int32
        parents = [Path(path).parent for path in paths_of(joined)]
        for one_parent, label in zip(parents, labels, strict=True):
            same = [parent == one_parent for parent in parents]
            np.testing.assert_array_equal(labels == label, same)


def labelled_set(tmp_path, folders, **values):
    """A workdir of `embed`, as it is after all photos below `folders` were embedded."""
    root = tmp_path / "photos"
    for folder in folders:
        write_noise_photos(root / folder, count=5)
    workdir = tmp_path / "workdir"
    index = embedded(workdir, sorted(root.rglob("*.png")))
    data = {"source": "folder", "root": str(root), "split": None, "list_file": None}
    data |= {"val_fraction": 0.0, "num_images": None, "local_cache_dir": None}
    write_config(workdir, {"task": "embed", "data": {**data, **ADDED_KEYS, **values}})
    return index, workdir


@pytest.mark.parametrize("moved", [False, True])
def test_splits_are_those_of_the_data_set(tmp_path, moved):
    index, _ = labelled_set(tmp_path, ("train", "val", "test"))
    root = tmp_path / "photos"
    if moved:
        root = root.rename(tmp_path / "elsewhere")
        index.move(str(tmp_path / "photos"), str(root))
    data = {**DATA, "root": str(root) if moved else None}
    labels = labels_of_rule(JoinedIndex(index), "train_val", data)
    assert labels is not None
    for path, label in zip(paths_of(JoinedIndex(index)), labels, strict=True):
        split = Path(path).relative_to(root).parts[0]
        assert label == {"train": 0, "val": 1, "test": -1}[split]


def test_what_is_held_out_is_that_of_training(tmp_path):
    index, _ = labelled_set(tmp_path, (".",))
    labels = labels_of_rule(JoinedIndex(index), "train_val", DATA)
    assert labels is not None and np.bincount(labels).tolist() == [9, 6]


def test_one_split_alone_and_an_unknown_data_set_are_refused(tmp_path):
    index, workdir = labelled_set(tmp_path, ("train", "val"))
    index.live[:] = [
        f"{tmp_path}/photos/val" in p for p in paths_of(JoinedIndex(index))
    ]
    with pytest.raises(InputError, match=r"database: .* has no photo of 'train'"):
        labels_of_rule(JoinedIndex(index), "train_val", DATA)
    (workdir / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json of `embed`"):
        labels_of_rule(JoinedIndex(index), "train_val", DATA)
