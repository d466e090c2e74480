"""Copies of one's own photos: which are looked for, and scores by plain counting."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.rankings import rankings, scores_of
from PIL import Image

from multigrain_jax.data.benchmarks import (
    BenchmarkFiles,
    BenchmarkSource,
    load_benchmark,
)
from multigrain_jax.data.benchmarks.copies import ONE_EDIT, assign_roles
from multigrain_jax.data.decoding import VIEWER, decode
from multigrain_jax.data.edits import EDITS
from multigrain_jax.errors import InputError


@pytest.fixture
def files(tmp_path):
    """Seven photos of their own colours in two folders, others beside them."""
    rng = np.random.default_rng(0)
    for folder, count in (("a", 4), ("b", 3), ("more", 2), ("background", 3)):
        parent = tmp_path / ("photos" if folder in "ab" else "others") / folder
        parent.mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (24, 30, 3), np.uint8)
            Image.fromarray(pixels).save(parent / f"{number}.png")
    return BenchmarkFiles(tmp_path / "photos")


def test_a_third_of_the_photos_has_each_role_and_always_the_same():
    roles = assign_roles(31, seed=0)
    assert [len(role) for role in roles] == [11, 10, 10]
    assert sorted(np.concatenate(roles).tolist()) == list(range(31))
    again, others = assign_roles(31, seed=0), assign_roles(31, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(roles, again, strict=True))
    assert not np.array_equal(roles.references, others.references)


def test_every_edit_has_a_protocol():
    assert list(ONE_EDIT.values()) == list(EDITS)


def test_copies_of_references_find_them_and_those_of_strangers_nothing(files):
    benchmark = load_benchmark("copies", files, expected_counts={})
    roles = assign_roles(7, seed=0)
    names = sorted(str(p.relative_to(files.root)) for p in files.root.rglob("*.png"))
    database = [benchmark.image_name(int(i)) for i in benchmark.database]
    kept = [*roles.references, *roles.distractors]
    assert database == [names[n] for n in kept]
    asked = [names[n] for n in (*roles.references, *roles.strangers)]
    queries = [benchmark.image_name(int(i)) for i in benchmark.queries]
    assert queries == [f"{name} ({edit})" for edit in EDITS for name in asked]
    assert [p.name for p in benchmark.protocols] == ["raw", *ONE_EDIT]
    for protocol in benchmark.protocols:
        for query, positives in zip(protocol.queries, protocol.positives, strict=True):
            photo = queries[query].rpartition(" (")[0]
            photo = photo.rpartition(" (")[0] if photo not in names else photo
            expected = [] if photo not in database else [database.index(photo)]
            assert positives.tolist() == expected
    of_one = [queries[q] for q in benchmark.protocols[2].queries]
    assert of_one == [f"{name} (crop 20 %)" for name in asked]


def test_the_pixels_of_queries_are_edited_and_those_of_the_database_are_not(files):
    benchmark = load_benchmark("copies", files, expected_counts={})
    source = BenchmarkSource(benchmark, VIEWER)
    for index, path in enumerate(benchmark.paths):
        with Image.open(path) as photo:
            expected = photo.convert("RGB")
        if index in benchmark.edited:
            expected = EDITS[benchmark.edited[index]](expected)
            with source.open(index) as file:
                assert Image.open(io.BytesIO(file.read())).size == expected.size
        found = decode(source.read(index), VIEWER)
        assert found.tobytes() == expected.tobytes()
    assert set(benchmark.edited) == set(benchmark.queries.tolist())


def test_other_photos_distract_and_normalise(files):
    others = files.root.parent / "others"
    chosen = dataclasses.replace(
        files, distractors=others / "more", training=others / "background"
    )
    benchmark = load_benchmark("copies", chosen, expected_counts={})
    assert len(benchmark.database) == 5 + 2
    folders = [benchmark.paths[i].split("/")[-2] for i in benchmark.database[-2:]]
    assert folders == ["more", "more"]
    assert {benchmark.paths[i].split("/")[-2] for i in benchmark.training} == {
        "background"
    }
    assert [p.name for p in benchmark.protocols] == ["raw", "normalized", *ONE_EDIT]
    assert [p.normalized for p in benchmark.protocols] == [False, True] + [False] * 6


def test_photos_that_lie_there_twice_have_one_role(files):
    plain = load_benchmark("copies", files, expected_counts={})
    first, second = files.root / "a" / "0.png", files.root / "b" / "1.png"
    shutil.copy(first, files.root / "b" / "0 again.png")
    shutil.copy(first, files.root / "c.png")
    (files.root / "d.png").symlink_to(second)
    # As large as another one, and of other bytes.
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    others = files.root.parent / "others"
    (others / "more" / "as large.png").write_bytes(data)
    shutil.copy(others / "more" / "0.png", others / "more" / "twice.png")
    chosen = dataclasses.replace(files, distractors=others / "more")
    found = load_benchmark("copies", chosen, expected_counts={})
    # The photos have the roles that they have without what was added.
    assert found.paths[:5] == plain.paths[:5]
    assert [found.paths[i] for i in found.queries] == [
        plain.paths[i] for i in plain.queries
    ]
    names = [Path(path).name for path in found.paths[5 : len(found.database)]]
    assert names == ["0.png", "1.png", "as large.png", "twice.png"]
    assert list(found.remarks) == [
        f"{files.root}: passed over 3 photos that are another one byte for byte, such "
        f"as {files.root / 'b/0 again.png'}, which is {first}"
    ]


def test_distractors_that_are_one_of_the_photos_by_their_bytes_are_left_out(files):
    more = files.root.parent / "others" / "more"
    shutil.copy(files.root / "a" / "0.png", more / "x.png")
    shutil.copy(files.root / "a" / "0.png", more / "y.png")
    chosen = dataclasses.replace(files, distractors=more)
    found = load_benchmark("copies", chosen, expected_counts={})
    names = [Path(path).name for path in found.paths[5 : len(found.database)]]
    assert names == ["0.png", "1.png"]
    (remark,) = found.remarks
    assert remark.startswith(f"{more}: passed over 2 photos that are another one byte ")


def test_scores_count_what_strangers_find_as_wrong(files):
    benchmark = load_benchmark("copies", files, expected_counts={})
    protocol = benchmark.protocols[0]
    relevant = np.zeros((len(benchmark.queries), len(benchmark.database)))
    for query, positives in zip(protocol.queries, protocol.positives, strict=True):
        relevant[query, positives] = 1
    similarities = rankings(relevant)
    assert scores_of(benchmark, similarities["perfect"])["copies/raw/micro_ap"] == 1
    # A stranger's copy that is surer than all others: it stands before every one.
    stranger = int(np.flatnonzero(relevant.sum(axis=1) == 0)[0])
    mistaken = similarities["perfect"].copy()
    mistaken[stranger, 0] = 2.0
    count = int(relevant.sum())
    expected = np.mean(np.arange(1, count + 1) / np.arange(2, count + 2))
    found = scores_of(benchmark, mistaken)
    assert found["copies/raw/micro_ap"] == pytest.approx(expected)
    assert found["copies/raw/recall_at_1"] == 1
    # The stranger's copy is by the first edit.
    assert found["copies/crop_50/micro_ap"] < 1 == found["copies/crop_20/micro_ap"]


def test_too_few_photos_are_refused(tmp_path):
    for number in range(2):
        Image.new("RGB", (8, 8 + number)).save(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match="found 2 photos, expected three or more"):
        load_benchmark("copies", BenchmarkFiles(tmp_path), expected_counts={})
    shutil.copy(tmp_path / "0.png", tmp_path / "2.png")
    message = r"(?s)found 2 photos, expected .*passed over 1 photos that are another"
    with pytest.raises(InputError, match=message):
        load_benchmark("copies", BenchmarkFiles(tmp_path), expected_counts={})
