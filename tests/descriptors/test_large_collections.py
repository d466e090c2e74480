"""The recipe of docs/large_collections.md runs and finds the true neighbours."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.descriptors.folder import (
    OK,
    VANISHED,
    DescriptorSettings,
    ImageStamp,
)
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.writer import DescriptorWriter

RECIPE = Path(__file__).parents[2] / "docs" / "large_collections.md"
DIM = 16
SETTINGS = DescriptorSettings(
    dim=DIM,
    dtype="float16",
    model_digest="d",
    backbone="tiny",
    pooling_exponent=3.0,
    test_size=64,
    test_mode="rect",
    whitened=False,
)


def write_folder(folder, images, descriptors):
    writer = DescriptorWriter(folder, SETTINGS, rows_per_shard=300)
    order, _ = writer.begin(images, lambda indices: indices)
    for start in range(0, len(order), 100):
        part = order[start : start + 100]
        statuses = [OK] * len(part)
        writer.add([images[n] for n in part], descriptors[part], statuses)
    writer.finish()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_recipe_finds_the_neighbours_and_writes_the_page(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    # Its threads wait for each other busily, which is slow on a loaded machine.
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (20, 10), (200, 0, 0)).save(photo)
    centres = rng.standard_normal((40, DIM))
    database = unit(np.repeat(centres, 25, axis=0) + rng.standard_normal((1000, DIM)))
    queries = unit(database[::50] + 0.02 * rng.standard_normal((20, DIM)))
    images = [ImageStamp(f"{tmp_path}/{n}.png", 1, 1) for n in range(1000)]
    folder = tmp_path / "workdirs" / "embed" / "descriptors"
    write_folder(folder, images, database)
    write_folder(folder, images[1:], database[1:])  # the first one vanished
    write_folder(
        tmp_path / "workdirs" / "embed_queries" / "descriptors",
        [ImageStamp(str(photo), n, 1)._replace(path=f"{photo}#{n}") for n in range(20)],
        queries,
    )
    (code,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, str(RECIPE), "exec"), names)

    index = DescriptorIndex.open(folder)
    similarities, rows = index.search(queries.astype(np.float16), 10)
    hits = 0
    for number, found in enumerate(names["neighbours"]):
        paths = [path for path, _ in found]
        assert f"{tmp_path}/0.png" not in paths
        assert len(paths) == 10
        hits += len(set(paths) & set(index.paths(rows[number])))
        if paths[0] == index.paths(rows[number][:1])[0]:
            assert found[0][1] == pytest.approx(similarities[number, 0], abs=1e-3)
    assert hits / (20 * 10) > 0.8
    assert "20 queries among 999 photos" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "ivfpq.faiss").stat().st_size < database.nbytes
    assert VANISHED in (folder / "index.csv").read_text()
