"""What the loaders refuse, and how images are turned and cut."""

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.benchmarks import (
    BENCHMARKS,
    BenchmarkFiles,
    BenchmarkSource,
    TurnAndCrop,
    load_benchmark,
)
from multigrain_jax.data.benchmarks.images import turn_and_crop
from multigrain_jax.data.crops import UndecodableImageError, encoded_size
from multigrain_jax.data.reading import read_image
from multigrain_jax.errors import InputError


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - {"folder"}))
def test_an_absent_benchmark_says_where_it_comes_from(name, tmp_path):
    with pytest.raises(InputError, match=r"nothing is downloaded, .* page"):
        load_benchmark(name, BenchmarkFiles(tmp_path / "nowhere"), expected_counts={})


# benchmark, the removed file, what the message says
MISSING = [
    ("holidays", "jpg/100001.jpg", r"found 6 .* expected 7 \(missing: 1: 100001.jpg\)"),
    ("holidays", "jpg/100100.jpg", r"groups: found 2 .* expected 3 .*100100.jpg"),
    ("holidays", "jpg/100002.jpg", r"images: found 6 .* expected 7; nothing"),
    ("ukbench", "full/ukbench00006.jpg", r"1 of 8 files .*: ukbench00006.jpg"),
    ("copydays", "crops/30/200100.jpg", r"crop: 1 of 27 .*/crops: 30/200100.jpg"),
    ("copydays", "strong/200002.jpg", r"strong: found 2 .* expected 3"),
    ("copydays", "original/200000.jpg", r"originals: found 2 .*: 200000.jpg"),
    ("roxford5k", "jpg/b_2.jpg", r"1 of 9 files .*: b_2.jpg"),
    ("roxford5k", "gnd_roxford5k.pkl", r"no ground truth .* revisitop"),
    ("disc21", "queries/Q00000.jpg", r"queries: 1 files .*: Q00000.jpg"),
    ("disc21", "references/R000003.jpg", r"references: 1 files .*: R000003.jpg"),
    ("disc21", "references/R000004.jpg", r"found 4 .* \(missing: 1: R000004.jpg\)"),
    ("disc21", "train/T000001.jpg", r"training: found 2 .*: T000001.jpg"),
    ("disc21", "public_ground_truth.csv", r"no ground truth in .* Challenge 2021"),
]


@pytest.mark.parametrize(("name", "file", "message"), MISSING)
def test_missing_files_are_named(makers, tmp_path, name, file, message):
    files, counts = makers[name](tmp_path)
    load_benchmark(name, files, expected_counts=counts)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=message):
        load_benchmark(name, files, expected_counts=counts)


def test_the_first_ten_missing_files_are_named(makers, tmp_path):
    files, _ = makers["ukbench"](tmp_path)
    with pytest.raises(InputError, match="12 of 20 files") as caught:
        load_benchmark("ukbench", files, expected_counts={"images": 20})
    assert "ukbench00017.jpg, …" in str(caught.value)
    assert "ukbench00018.jpg" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - {"folder"}))
def test_a_smaller_copy_is_refused_unless_its_counts_are_given(makers, tmp_path, name):
    files, counts = makers["roxford5k" if name == "rparis6k" else name](tmp_path)
    if name == "rparis6k":
        (tmp_path / "gnd_roxford5k.pkl").rename(tmp_path / "gnd_rparis6k.pkl")
    load_benchmark(name, files, expected_counts=counts)
    with pytest.raises(InputError, match=r"expected [\d]{3}|of 10200 files"):
        load_benchmark(name, files, expected_counts={})
    for what in counts:
        one_less = {**counts, what: counts[what] - (4 if name == "ukbench" else 1)}
        if name == "ukbench":
            # More photos than it has: the others are no part of it.
            assert len(load_benchmark(name, files, expected_counts=one_less).paths) == 4
            continue
        with pytest.raises(InputError, match="expected"):
            load_benchmark(name, files, expected_counts=one_less)


def test_unknown_names_are_refused(makers, tmp_path):
    files, counts = makers["holidays"](tmp_path)
    with pytest.raises(InputError, match="found 'holiday', expected one of holidays"):
        load_benchmark("holiday", files, expected_counts=counts)
    with pytest.raises(InputError, match="expected_counts has photos"):
        load_benchmark("holidays", files, expected_counts={"photos": 7})
    training = dataclasses.replace(files, training=tmp_path)
    with pytest.raises(InputError, match=r"files has training, .* expected rotations"):
        load_benchmark("holidays", training, expected_counts=counts)


def test_a_folder_without_pairs_is_refused(write_images, tmp_path):
    write_images(tmp_path / "one", ["a.jpg"])
    write_images(tmp_path, ["b.jpg", "c.jpg"])
    with pytest.raises(InputError, match="3 images in 1 subfolders"):
        load_benchmark("folder", BenchmarkFiles(tmp_path), expected_counts={})


def test_folder_photos_are_turned_as_exif_says_and_no_other(makers, tmp_path):
    for name, maker in makers.items():
        files, counts = maker(tmp_path / name)
        benchmark = load_benchmark(name, files, expected_counts=counts)
        upright = BenchmarkSource(benchmark).apply_exif_orientation
        assert upright == (name == "folder")


@pytest.fixture
def picture():
    """Every pixel another colour."""
    values = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12)
    return Image.fromarray(np.stack([values, values + 100, 255 - values], axis=-1))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_images_are_turned_clockwise(picture, degrees):
    turned = np.asarray(turn_and_crop(picture, TurnAndCrop(clockwise=degrees)))
    np.testing.assert_array_equal(turned, np.rot90(picture, -degrees // 90))


def test_boxes_are_rounded_and_cut(picture):
    cut = np.asarray(turn_and_crop(picture, TurnAndCrop(box=(2.4, 0.6, 9.6, 7.0))))
    np.testing.assert_array_equal(cut, np.asarray(picture)[1:7, 2:10])
    for box in ((12.0, 0.0, 14.0, 8.0), (3.0, 2.0, 3.4, 8.0), (0.0, -5.0, 9.0, 0.0)):
        with pytest.raises(UndecodableImageError, match="no pixel of an image"):
            turn_and_crop(picture, TurnAndCrop(box=box))


def test_roxford_queries_are_cut_and_database_images_are_not(makers, tmp_path, picture):
    files, counts = makers["roxford5k"](tmp_path)
    for file in (tmp_path / "jpg").iterdir():
        picture.save(file, "JPEG", quality=95)
    benchmark = load_benchmark("roxford5k", files, expected_counts=counts)
    source = BenchmarkSource(benchmark)
    whole = np.asarray(read_image(source, 0))
    assert whole.shape == (8, 12, 3)
    query = int(benchmark.queries[0])
    np.testing.assert_array_equal(read_image(source, query), whole[1:7, 2:10])
    with source.open(query) as file:
        assert encoded_size(file) == (8, 6)
    with source.open(0) as file:
        assert encoded_size(file) == (12, 8)


@pytest.mark.parametrize(
    "text",
    ['{\n"100001.jpg": 90,\n"100100.jpg": 0,\n}\n', "100001.jpg 90\n# upright\n"],
)
def test_holidays_are_turned_by_the_table(makers, tmp_path, picture, text):
    files, counts = makers["holidays"](tmp_path / "holidays")
    table = tmp_path / "rotations"
    table.write_text(text)
    upright = dataclasses.replace(files, rotations=table)
    benchmark = load_benchmark("holidays", upright, expected_counts=counts)
    assert benchmark.turned_or_cropped == {1: TurnAndCrop(clockwise=90)}
    source = BenchmarkSource(benchmark)
    assert [read_image(source, index).size for index in (0, 1)] == [(12, 8), (8, 12)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100001.jpg: 45", "found the line '100001.jpg: 45'"),
        ("100001.jpg", "found the line"),
        ("999999.jpg: 90", "turns none of the photos"),
        (None, "cannot be read .* original MultiGrain repository"),
    ],
)
def test_a_broken_table_of_rotations_is_refused(makers, tmp_path, text, message):
    files, counts = makers["holidays"](tmp_path / "holidays")
    table = tmp_path / "rotations"
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=message):
        load_benchmark(
            "holidays",
            dataclasses.replace(files, rotations=table),
            expected_counts=counts,
        )


ENTRY = {"bbx": [0, 0, 5, 5], "easy": [], "hard": [], "junk": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"easy": [6]}, r"easy names the images \[6.0\], .* from 0 to 5; take the"),
        ({"junk": [-1]}, r"junk names the images \[-1.0\]"),
        ({"hard": [1, 0.5]}, r"hard names the images \[0.5\]"),
        ({"bbx": [5, 0, 1, 5]}, "expected left, top, right and bottom"),
        ({"bbx": "abcd"}, "without the numbers 'bbx'"),
        ({"easy": {"a": 1}}, "without the numbers 'easy'"),
    ],
)
def test_a_strange_ground_truth_is_refused(makers, tmp_path, change, message):
    truth = [ENTRY, ENTRY, {**ENTRY, **change}]
    files, counts = makers["roxford5k"](tmp_path)
    content = pickle.loads((tmp_path / "gnd_roxford5k.pkl").read_bytes())
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(
        pickle.dumps({**content, "gnd": truth})
    )
    with pytest.raises(InputError, match=message):
        load_benchmark("roxford5k", files, expected_counts=counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gnd": [ENTRY]}, "1 entries of gnd for 3 queries"),
        ({"qimlist": ["../q0", "q1", "q2"]}, "1 image names with a folder"),
        ({"imlist": None}, "imlist is no list of str"),
    ],
)
def test_strange_lists_are_refused(makers, tmp_path, change, message):
    files, counts = makers["roxford5k"](tmp_path)
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), **change}))
    with pytest.raises(InputError, match=message):
        load_benchmark("roxford5k", files, expected_counts=counts)


def test_disc21_queries_come_from_the_ground_truth_and_a_list(makers, tmp_path):
    files, counts = makers["disc21"](tmp_path)
    truth = tmp_path / "only_matches.csv"
    truth.write_text("Q00002,R000001\nQ00001,R000003\n")
    names = tmp_path / "queries.txt"
    names.write_text("Q00003.jpg\nQ00001\n")
    chosen = dataclasses.replace(
        files, ground_truth=truth, query_list=names, training=None
    )
    benchmark = load_benchmark(
        "disc21", chosen, expected_counts={**counts, "queries": 3}
    )
    found = [benchmark.image_name(int(index)) for index in benchmark.queries]
    assert found == [f"queries/Q0000{n}.jpg" for n in (2, 1, 3)]
    assert [list(p) for p in benchmark.protocols[0].positives] == [[1], [3], []]
    truth.write_text("Q00002,R000001,0.5\n")
    with pytest.raises(InputError, match=r"row 1: found .* take the file anew"):
        load_benchmark("disc21", chosen, expected_counts=counts)
