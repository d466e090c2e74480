"""Checkpoints in a bucket are copied, one step of them, and verified as any."""

import os

import jax
import numpy as np
import pytest
from helpers.checkpoints import flip, save_small, small_items

from multigrain_jax import bucket_copies
from multigrain_jax.checkpoint import (
    DamagedCheckpointError,
    find_checkpoint,
    load_checkpoint,
)
from multigrain_jax.errors import InputError

# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIGRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_copies, "PAUSE_S", 0.0)
    monkeypatch.setattr("multigrain_jax.checkpoint.storage.PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    for step in (5, 10):
        save_small(folder, step)
    return folder


@pytest.mark.parametrize("scheme", ["gcs", "s3"])
def test_a_workdir_its_checkpoints_and_a_step_are_found(run, scheme, request):
    bucket = request.getfixturevalue(scheme)
    bucket.put_folder(run, "some/run")
    for place, step, expected in (
        ("some/run", None, 10),
        ("some/run/checkpoints", None, 10),
        ("some/run", 5, 5),
        ("some/run/checkpoints/5", None, 5),
    ):
        found = load_checkpoint(bucket.url(place), step=step)
        assert found.step == expected
        assert str(found.path) == bucket.url(f"some/run/checkpoints/{expected}")
        model = small_items(expected)["model"]
        jax.tree.map(np.testing.assert_array_equal, found.model, model)


def test_one_step_is_copied_and_the_others_are_told_of(run, gcs):
    gcs.put_folder(run, "run")
    folder = find_checkpoint(gcs.url("run"), step=5)
    assert sorted(os.listdir(folder.parent)) == ["10", "5"]
    assert not os.listdir(folder.parent / "10")
    with pytest.raises(InputError, match=r"step 7 was expected in gs://\S+/run, found"):
        find_checkpoint(gcs.url("run"), step=7)
    with pytest.raises(InputError, match=r"step 7 .* found steps \[5, 10\]"):
        find_checkpoint(gcs.url("run"), step=7)
    with pytest.raises(InputError, match=r"was expected in gs://\S+/no, found none"):
        load_checkpoint(gcs.url("no"))


def test_a_checkpoint_that_is_not_whole_yet_is_passed_over(run, gcs):
    gcs.put_folder(run, "run")
    gcs.delete("run/checkpoints/10/meta/metadata")  # which is written last
    assert load_checkpoint(gcs.url("run")).step == 5


def test_damage_is_told_of_the_address(run, gcs, tmp_path):
    gcs.put_folder(run, "run")
    (name,) = [n for n in gcs.names("run/checkpoints/10/model/d/")][:1]
    (tmp_path / "file").write_bytes(gcs.data(name))
    flip(tmp_path / "file")
    gcs.put(name, (tmp_path / "file").read_bytes())
    with pytest.raises(DamagedCheckpointError, match=gcs.url("run")) as caught:
        load_checkpoint(gcs.url("run"))
    assert "cache" not in str(caught.value)
