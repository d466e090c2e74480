"""Tiny copies of the retrieval benchmarks' folders and ground-truth files."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.benchmarks import BenchmarkFiles, load_benchmark

LEVELS = {
    "crop": (10, 15, 20, 30, 40, 50, 60, 70, 80),
    "jpeg": (3, 5, 8, 10, 15, 20, 30, 50, 75),
}
# Two easy, one hard and one junk image; nothing hard; nothing but junk.
TRUTH = [
    {"bbx": [2.4, 1.0, 9.6, 7.0], "easy": [0, 4], "hard": [2], "junk": [5]},
    {"bbx": [0.0, 0.0, 3.0, 3.0], "easy": [1], "hard": [], "junk": [0, 3]},
    {"bbx": [1.0, 2.0, 12.0, 8.0], "easy": [], "hard": [], "junk": [1]},
]
LANDMARKS = ["all_souls_1", "b_2", "c_3", "d_4", "e_5", "f_6"]


def _write_images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()
    Image.new("RGB", (12, 8), (200, 90, 30)).save(encoded, "JPEG")
    for name in names:
        (folder / name).write_bytes(encoded.getvalue())


def make_holidays(root):
    groups = {1000: 3, 1001: 2, 1002: 2}
    names = [f"{g}{n:02d}.jpg" for g, size in groups.items() for n in range(size)]
    _write_images(root / "jpg", names)
    return BenchmarkFiles(root), {"images": 7, "groups": 3}


def make_ukbench(root):
    _write_images(root / "full", [f"ukbench{n:05d}.jpg" for n in range(8)])
    return BenchmarkFiles(root), {"images": 8}


def make_copydays(root, *, crops="crops", jpegs="jpegqual", originals="original"):
    names = ["200000.jpg", "200100.jpg", "200200.jpg"]
    _write_images(root / originals, names)
    for folder, kind in ((crops, "crop"), (jpegs, "jpeg")):
        for level in LEVELS[kind]:
            _write_images(root / folder / str(level), names)
    _write_images(root / "strong", ["200001.jpg", "200002.jpg", "200201.jpg"])
    return BenchmarkFiles(root), {"originals": 3, "strong": 3}


def make_roxford(root, truth=TRUTH):
    _write_images(root / "jpg", [f"{n}.jpg" for n in (*LANDMARKS, "q0", "q1", "q2")])
    arrays = [{key: np.array(value) for key, value in row.items()} for row in truth]
    content = {"imlist": LANDMARKS, "qimlist": ["q0", "q1", "q2"], "gnd": arrays}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return BenchmarkFiles(root), {"images": 6, "queries": 3}


def make_disc21(root):
    _write_images(root / "queries", [f"Q{n:05d}.jpg" for n in range(4)])
    _write_images(root / "references", [f"R{n:06d}.jpg" for n in range(5)])
    _write_images(root / "train", [f"T{n:06d}.jpg" for n in range(3)])
    rows = "query_id,reference_id\nQ00000,\nQ00001,R000003\nQ00002,R000001\nQ00003,\n"
    (root / "public_ground_truth.csv").write_text(rows)
    files = BenchmarkFiles(root, training=root / "train")
    return files, {"queries": 4, "references": 5, "matches": 2, "training": 3}


def make_folder(root):
    _write_images(root / "cup", ["a.jpg", "b.jpg", "c.png"])
    _write_images(root / "dog", ["a.jpg", "b.jpg"])
    _write_images(root / "one", ["a.jpg"])
    _write_images(root, ["stray.jpg"])
    return BenchmarkFiles(root), {}


MAKERS = {
    "holidays": make_holidays,
    "ukbench": make_ukbench,
    "copydays": make_copydays,
    "roxford5k": make_roxford,
    "disc21": make_disc21,
    "folder": make_folder,
}


@pytest.fixture
def makers():
    """Benchmark -> a function of a folder that fills it: its files and counts."""
    return MAKERS


@pytest.fixture
def write_images():
    """Fills a folder with photos of the given names."""
    return _write_images


@pytest.fixture
def roxford_truth():
    """The lists of the tiny ROxford's three queries."""
    return TRUTH


@pytest.fixture
def load(makers, tmp_path):
    """Loads the tiny copy of a benchmark, which options of its maker may change."""

    def load_one(name, **how):
        files, counts = makers[name](tmp_path / name, **how)
        return load_benchmark(name, files, expected_counts=counts)

    return load_one


@pytest.fixture
def picture():
    """Every pixel another colour."""
    values = np.arange(12 * 8, dtype=np.uint8).reshape(8, 12)
    return Image.fromarray(np.stack([values, values + 100, 255 - values], axis=-1))
