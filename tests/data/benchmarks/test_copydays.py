"""INRIA Copydays: its folders' spellings, and the distractors."""

import pytest

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark
from multigrain_jax.errors import InputError


@pytest.mark.parametrize("originals", ["original", "."])
def test_copydays_has_two_spellings(load, originals):
    benchmark = load("copydays", crops="crop", jpegs="jpeg", originals=originals)
    assert len(benchmark.queries) == 18 * 3 + 3
    assert [len(p.queries) for p in benchmark.protocols] == [27, 27, 3, 57]


def test_copydays_distractors_join_the_database(makers, write_images, tmp_path):
    files, counts = makers["copydays"](tmp_path / "copydays")
    write_images(tmp_path / "flickr" / "a", ["1.jpg", "2.jpg"])
    write_images(tmp_path / "flickr" / "b", ["3.jpg"])
    (tmp_path / "list.txt").write_text("b/3.jpg\na/2.jpg\n")
    folder = BenchmarkFiles(files.root, distractors=tmp_path / "flickr")
    benchmark = load_benchmark(
        "copydays", folder, expected_counts={**counts, "distractors": 3}
    )
    assert len(benchmark.database) == 6
    listed = BenchmarkFiles(
        files.root,
        distractors=tmp_path / "flickr",
        distractor_list=tmp_path / "list.txt",
    )
    with pytest.raises(InputError, match=r"found 2 in .* expected 10000"):
        load_benchmark("copydays", listed, expected_counts=counts)
    two = {**counts, "distractors": 2}
    benchmark = load_benchmark("copydays", listed, expected_counts=two)
    names = [benchmark.paths[int(i)][-7:] for i in benchmark.database[3:]]
    assert names == ["b/3.jpg", "a/2.jpg"]
    (tmp_path / "flickr" / "b" / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 files .*: b/3.jpg"):
        load_benchmark("copydays", listed, expected_counts=two)
