"""One's own photos as a benchmark: a subfolder is an object."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.rankings import scores_of

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


def test_other_photos_normalise_what_queries_find(makers, write_images, tmp_path):
    files, _ = makers["folder"](tmp_path / "photos")
    write_images(tmp_path / "others", ["x.jpg", "y.jpg", "z.jpg"])
    chosen = dataclasses.replace(files, training=tmp_path / "others")
    benchmark = load_benchmark("folder", chosen, expected_counts={})
    assert len(benchmark.database) == 7 and len(benchmark.queries) == 5
    names = [Path(benchmark.paths[i]).name for i in benchmark.training]
    assert names == ["x.jpg", "y.jpg", "z.jpg"]
    assert [p.name for p in benchmark.protocols] == ["all", "normalized"]
    # All queries are as sure of the right photos, at 0.6, and the last one is surer of
    # wrong ones: it is known to be sure of everything.
    protocol = benchmark.protocols[0]
    similarity = np.zeros((5, 7), np.float32)
    for query, positives in enumerate(protocol.positives):
        similarity[query, positives] = 0.6
    wrong = [i for i in range(7) if i not in protocol.positives[4]]
    similarity[4, wrong] = 0.8
    training = np.zeros((3, 7), np.float32)
    # Like a photo that nobody looks for, which that query finds too.
    images = [benchmark.image_name(int(i)) for i in benchmark.database]
    training[:, images.index("stray.jpg")] = 1
    found = scores_of(
        benchmark, similarity, training=training, normalization_neighbours=3
    )
    assert found["folder/all/map"] == found["folder/normalized/map"] < 1
    assert found["folder/all/recall_at_p90"] == 0
    assert found["folder/normalized/recall_at_p90"] == 7 / 8
