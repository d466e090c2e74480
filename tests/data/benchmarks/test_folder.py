"""One's own photos as a benchmark: a subfolder is an object."""

import pytest

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.errors import InputError


def test_a_folder_without_pairs_is_refused(write_images, tmp_path):
    write_images(tmp_path / "one", ["a.jpg"])
    write_images(tmp_path, ["b.jpg", "c.jpg"])
    with pytest.raises(InputError, match="3 images in 1 subfolders"):
        load_benchmark("folder", BenchmarkFiles(tmp_path), expected_counts={})


def test_photos_alone_of_their_kind_are_looked_through_and_do_not_look(load):
    benchmark = load("folder")
    names = [benchmark.image_name(int(index)) for index in benchmark.database]
    assert len(names) == 7 and "stray.jpg" in names and "one/a.jpg" in names
    (protocol,) = benchmark.protocols
    asked = [benchmark.image_name(int(benchmark.queries[q])) for q in protocol.queries]
    assert sorted(name.split("/")[0] for name in asked) == ["cup"] * 3 + ["dog"] * 2
