"""A checkpoint as a list of leaves with their digests."""

import numpy as np
import pytest
from helpers.checkpoints import flip, save_small

from multigrain_jax.checkpoint import describe_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.trees import leaf_digests

MODEL = {"params": {"bias": np.zeros(7), "kernel": np.ones((2, 3), np.float32)}}


def test_every_array_is_listed_with_its_digest(tmp_path):
    folder = save_small(tmp_path, model=MODEL, optimizer={"trace": np.zeros(2)})
    found = describe_checkpoint(tmp_path)
    assert (found.path, found.meta) == (folder, {"backbone": "tiny"})
    assert [leaf[:4] for leaf in found.leaves] == [
        ("model.params.bias", "float64", (7,), 56),
        ("model.params.kernel", "float32", (2, 3), 24),
        ("optimizer.trace", "float64", (2,), 16),
    ]
    digests = [leaf.digest for leaf in found.leaves]
    assert digests[:2] == list(leaf_digests(MODEL).values())


def test_the_digest_of_all_tells_other_arrays(tmp_path):
    digests = []
    for number, kernel in enumerate((1.0, 1.0, 2.0)):
        model = {"params": {"kernel": np.full(3, kernel)}}
        save_small(tmp_path / str(number), model=model, optimizer=None)
        digests.append(describe_checkpoint(tmp_path / str(number)).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_to_the_optimizer_is_noticed_too(tmp_path):
    folder = save_small(tmp_path)
    for path in (folder / "optimizer").rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip(path)
    with pytest.raises(InputError, match="damaged or incomplete"):
        describe_checkpoint(tmp_path)
