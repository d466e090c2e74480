"""The comparison of recipes as a command: what fails, and what is taken once."""

import numpy as np
import pytest
from PIL import Image

from measure import quality
from multigrain_jax.errors import InputError


@pytest.fixture
def photos(tmp_path):
    """Three photos of each of two classes to train with, two to test with."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in "ab":
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                blocks = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
                blocks.resize((40, 30)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def jobs_of(photos, *more):
    command = ["--photos", str(photos), "--out", "out", "--folds", "3", *more]
    return list(quality.plan(quality.parse(command)))


def test_folds_without_a_photo_are_refused_by_their_option(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--folds: found 4, of which 1 would have no"):
        jobs_of(photos, "--folds", "4")
