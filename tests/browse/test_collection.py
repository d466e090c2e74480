"""Photos by their rows, in folders."""

import numpy as np
from helpers.descriptor_folders import SETTINGS
from helpers.descriptor_folders import embed as write_descriptors

from multigrain_jax.browse.collection import Collection
from multigrain_jax.descriptors.folder import ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex

NAMES = ("b/2.jpg", "b/1.jpg", "a/b/1.jpg", "a/1.jpg", "top.jpg", "b2/1.jpg")


def make(tmp_path, *, root="/p", names=NAMES):
    images = [ImageStamp(f"{root}/{n}", 101 + i, 7) for i, n in enumerate(names)]
    images = [image._replace(size=image.size * 10 + 1) for image in images]
    write_descriptors(tmp_path / "d", images, settings=SETTINGS)
    return Collection(DescriptorIndex.open(tmp_path / "d"), roots=[root])


def test_photos_are_in_the_order_of_folders_and_names(tmp_path):
    collection = make(tmp_path)
    shown = [collection.path(row) for row in collection.order.tolist()]
    in_order = ("top.jpg", "a/1.jpg", "a/b/1.jpg", "b/1.jpg", "b/2.jpg", "b2/1.jpg")
    assert shown == [f"/p/{name}" for name in in_order]
    assert collection.folders == ["p", "a", "a/b", "b", "b2"]
    row = collection.row_of("/p/a/b/1.jpg")
    assert row is not None and collection.class_of(row) == "b"
    assert collection.stamp(row) == ImageStamp("/p/a/b/1.jpg", 1031, 7)
    assert collection.row_of("/p/none.jpg") is None


def test_a_folder_has_its_subfolders_and_no_folder_that_begins_alike(tmp_path):
    collection = make(tmp_path)

    def names(folder, class_name):
        rows = collection.shown(collection.within(folder, class_name))
        return [collection.path(row).removeprefix("/p/") for row in rows.tolist()]

    assert names("b", None) == ["b/1.jpg", "b/2.jpg"]
    assert names("a", None) == ["a/1.jpg", "a/b/1.jpg"]
    assert names(None, "b") == ["a/b/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert names("a", "b") == ["a/b/1.jpg"]
    assert names("nothing", None) == []
    assert len(names(None, None)) == len(collection) == 6


def test_a_folder_named_as_the_root_is_another(tmp_path):
    collection = make(tmp_path, names=("1.jpg", "p/x/2.jpg", "p/3.jpg"))
    assert collection.folders == [".", "p", "p/x"]
    rows = collection.shown(collection.within("p", None)).tolist()
    assert [collection.path(row) for row in rows] == ["/p/p/3.jpg", "/p/p/x/2.jpg"]
    assert collection.within(".", None).sum() == 1


def test_what_was_moved_away_is_not_shown(tmp_path):
    collection = make(tmp_path)
    row = collection.row_of("/p/b/1.jpg")
    assert row is not None
    collection.alive[row] = False
    assert not collection.has(row) and not collection.has(-1) and not collection.has(6)
    assert len(collection) == 5
    assert row not in collection.shown(collection.within("b", None))
    # The descriptors' own record is not touched.
    assert np.all(collection.index.live)


def test_without_roots_there_is_what_all_photos_have_in_common(tmp_path):
    make(tmp_path, root="/x/y")
    index = DescriptorIndex.open(tmp_path / "d")
    assert Collection(index, roots=[]).roots == ("/x/y",)
    several = Collection(index, roots=["/x/y", "/z"])
    assert several.folders[0] == "/x/y"
