"""Photos beside a benchmark's own: what is refused, and by which key."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.data.benchmarks.others import refuse_own
from multigrain_jax.errors import InputError

# benchmark, a key of its `data` that is a folder of other photos
OTHERS = [
    ("copies", "distractors"),
    ("copies", "training"),
    ("copydays", "distractors"),
    ("disc21", "training"),
    ("folder", "training"),
]
# Those of photos in folders of any names.
OF_ANY = {"copies", "folder"}
# Of each tiny benchmark, a folder of its own photos.
OWN = {
    "copies": "own",
    "copydays": "own/strong",
    "disc21": "own/references",
    "folder": "own/dog",
}


@pytest.fixture
def load(makers, tmp_path):
    """Loads a tiny benchmark with other photos, by the name of their key.

    They are as many as is expected of them, whatever their number.
    """

    def load(name, key, folder, **more):
        root, counts = tmp_path / "own", {}
        if name == "copies":
            files = BenchmarkFiles(root)
            root.mkdir(exist_ok=True)
            for content in ("a", "b", "c"):  # which nobody decodes here
                (root / f"{content}.jpg").write_text(content)
        else:
            files, counts = makers[name](root)
        if name in ("copydays", "disc21"):
            counts[key] = len(list(Path(folder or "nowhere").glob("*.jpg")))
        files = dataclasses.replace(files, **{key: folder, **more})
        return load_benchmark(name, files, expected_counts=counts)

    return load


@pytest.mark.parametrize(("name", "key"), OTHERS)
def test_a_folder_that_is_none_or_empty_is_told_by_its_key(load, tmp_path, name, key):
    others = tmp_path / "others"
    message = f"^data.{key}: {others} .* found {{}}; give it with --config.data.{key}=D"
    with pytest.raises(InputError, match=message.format("nothing")):
        load(name, key, others)
    others.touch()
    with pytest.raises(InputError, match=message.format("a file")):
        load(name, key, others)
    others.unlink()
    others.mkdir()
    (others / "notes.txt").touch()
    with pytest.raises(InputError, match=rf"^data.{key}: .*{others}.*notes\.txt") as e:
        load(name, key, others)
    assert "per class" not in str(e.value) and "data.root" not in str(e.value)


def test_a_list_of_distractors_is_nothing_without_their_folder(load, tmp_path):
    listed = tmp_path / "list.txt"
    with pytest.raises(InputError, match=r"^data.distractors: found nothing, .*list.t"):
        load("copydays", "distractors", None, distractor_list=listed)


@pytest.mark.parametrize("spelling", ["", "dots", "relative", "link", "links"])
@pytest.mark.parametrize(("name", "key"), OTHERS)
def test_a_benchmark_s_own_photos_are_no_others(
    load, write_images, tmp_path, name, key, spelling
):
    own = folder = tmp_path / OWN[name]
    write_images(tmp_path / "others", ["x.jpg"])
    load(name, key, tmp_path / "others")
    photos = sorted(own.glob("*.jpg"))
    if spelling == "dots":
        folder = own / ".." / own.name
    elif spelling == "relative":
        folder = Path(os.path.relpath(own))
    elif spelling == "link":
        folder = tmp_path / "link"
        folder.symlink_to(own)
    elif spelling == "links":  # of the photos, beside one that is another
        folder = tmp_path / "others"
        for photo in photos:
            (folder / photo.name).symlink_to(photo)
    count = len(photos) + (spelling == "links")
    with pytest.raises(InputError) as error:
        load(name, key, folder)
    assert str(error.value) == (
        f"data.{key}: found {len(photos)} of its {count} photos among the benchmark's "
        f"own, the first of them {folder / photos[0].name}, expected other photos "
        f"alone; give a folder without them with --config.data.{key}=DIR"
    )
    # The same photos elsewhere are others.
    shutil.copytree(own, tmp_path / "elsewhere")
    load(name, key, tmp_path / "elsewhere")


@pytest.mark.parametrize(("name", "key"), [o for o in OTHERS if o[0] in OF_ANY])
def test_others_below_the_own_folder_and_own_below_the_others_are_found(
    load, write_images, tmp_path, name, key
):
    own = tmp_path / "own"
    write_images(own / "below", ["x.jpg", "y.jpg"])
    (own / "linked").symlink_to(own / "below")
    for folder in ("below", "linked"):
        with pytest.raises(InputError, match=rf"^data.{key}: found 2 of its 2 photos"):
            load(name, key, own / folder)
    write_images(tmp_path, ["x.jpg"])
    with pytest.raises(InputError, match=rf"^data.{key}: found (\d+) of its (?!\1 )"):
        load(name, key, tmp_path)


def test_distractors_are_no_training_photos(load, write_images, tmp_path):
    write_images(tmp_path / "others", ["x.jpg"])
    others = tmp_path / "others"
    with pytest.raises(InputError, match=r"^data.training: found 1 of its 1 photos"):
        load("copies", "training", others, distractors=others)


def test_addresses_in_a_bucket_are_compared_as_they_are():
    own, others = ["gs://b/own/1.jpg", "gs://b/own/2.jpg"], ["gs://b/x/1.jpg"]
    refuse_own(others, own, key="data.training")
    with pytest.raises(InputError, match=r"found 1 of its 2 .* gs://b/own/2.jpg, exp"):
        refuse_own([*others, own[1]], own, key="data.training")
