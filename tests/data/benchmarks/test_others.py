"""Photos beside a benchmark's own: what is refused, and by which key."""

import dataclasses

import pytest

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.errors import InputError

# benchmark, a key of its `data` that is a folder of other photos
OTHERS = [
    ("copies", "distractors"),
    ("copies", "training"),
    ("copydays", "distractors"),
    ("disc21", "training"),
    ("folder", "training"),
]


@pytest.fixture
def with_others(makers, write_images, tmp_path):
    """Loads a benchmark with one more folder, by the name of its key."""

    def load(name, key, folder, **more):
        root, counts = tmp_path / "own", {}
        if name == "copies":
            write_images(root, ["a.jpg", "b.jpg", "c.jpg"])
            files = BenchmarkFiles(root)
        else:
            files, counts = makers[name](root)
        files = dataclasses.replace(files, **{key: folder, **more})
        return load_benchmark(name, files, expected_counts=counts)

    return load


@pytest.mark.parametrize(("name", "key"), OTHERS)
def test_a_folder_that_is_none_or_empty_is_told_by_its_key(
    with_others, tmp_path, name, key
):
    others = tmp_path / "others"
    message = f"^data.{key}: {others} .* found {{}}; give it with --config.data.{key}=D"
    with pytest.raises(InputError, match=message.format("nothing")):
        with_others(name, key, others)
    others.touch()
    with pytest.raises(InputError, match=message.format("a file")):
        with_others(name, key, others)
    others.unlink()
    others.mkdir()
    (others / "notes.txt").touch()
    with pytest.raises(InputError, match=rf"^data.{key}: .*{others}.*notes\.txt") as e:
        with_others(name, key, others)
    assert "per class" not in str(e.value) and "data.root" not in str(e.value)


def test_a_list_of_distractors_is_nothing_without_their_folder(with_others, tmp_path):
    listed = tmp_path / "list.txt"
    with pytest.raises(InputError, match=r"^data.distractors: found nothing, .*list.t"):
        with_others("copydays", "distractors", None, distractor_list=listed)
