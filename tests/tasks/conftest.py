"""Photos and the collection of them that several tasks look through."""

import shutil

import pytest
from helpers.configs import small_eval_config
from helpers.photos import write_noise_photos

from configs import embed
from multigrain_jax.tasks import embed as run_embed


@pytest.fixture(scope="session")
def database(photo_folder, tiny_checkpoint, tmp_path_factory):
    """A workdir of `embed` with 18 photos, copies of two and a bad file."""
    base = tmp_path_factory.mktemp("database")
    root = base / "photos"
    shutil.copytree(photo_folder, root)
    originals = sorted((root / "train").rglob("0.png"))
    shutil.copy(originals[0], root / "=copy.png")
    shutil.copy(originals[0], root / "copy too.png")
    shutil.copy(originals[1], root / "<b>.png")
    (root / "bad.png").write_bytes(b"no image")
    config = small_eval_config(
        embed.get_config,
        root,
        tiny_checkpoint,
        rows_per_shard=8,
        descriptor_dtype="float32",
    )
    run_embed.run(config, base / "workdir")
    return base / "workdir"


@pytest.fixture(scope="session")
def larger_collection(photo_folder, tiny_checkpoint, tmp_path_factory):
    """A workdir of `embed` with photos at another size than those of `database`."""
    workdir = tmp_path_factory.mktemp("larger") / "workdir"
    config = small_eval_config(
        embed.get_config, photo_folder, tiny_checkpoint, test_size=64
    )
    run_embed.run(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def objects(tmp_path_factory):
    """Four photos of each of three objects that are hard to tell apart."""
    sizes = [(40, 30), (30, 40), (48, 30), (40, 30)]
    root = tmp_path_factory.mktemp("objects")
    return write_noise_photos(root, count=4, sizes=sizes, brightest=220, tint_by=12)
