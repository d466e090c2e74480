"""What of the program itself a checkpoint records, and what a resumed run compares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.beginnings import save, start, value_of

from multigrain_jax.data.crops import random_crop_box
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.train_batches import _generator
from multigrain_jax.errors import InputError
from multigrain_jax.ops.color import augment
from multigrain_jax.train import versions
from multigrain_jax.train.versions import FIRST, compare_versions, current_versions


def test_the_same_program_goes_on_without_a_word(capsys):
    compare_versions(current_versions(), allowed=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", current_versions())
def test_each_version_and_setting_is_compared(name, capsys):
    recorded = {**current_versions(), name: "other"}
    with pytest.raises(InputError, match=f"{name}: 'other' -> ") as error:
        compare_versions(recorded, allowed=False)
    assert str(error.value).count("->") == 1
    compare_versions(recorded, allowed=True)
    assert f"{name}: 'other' -> " in capsys.readouterr().out


def test_what_a_later_program_records_is_compared_too():
    recorded = {**current_versions(), "colours": 2}
    with pytest.raises(InputError, match="colours: 2 -> None"):
        compare_versions(recorded, allowed=False)


def test_a_checkpoint_that_does_not_say_is_of_the_first(capsys, monkeypatch):
    compare_versions(None, allowed=False)
    assert "taken as augmentation 1, order 1" in capsys.readouterr().out
    assert {name: current_versions()[name] for name in FIRST} == FIRST
    monkeypatch.setattr(versions, "AUGMENTATION_VERSION", 2)
    with pytest.raises(InputError, match="augmentation: 1 -> 2"):
        compare_versions(None, allowed=False)


def test_a_run_of_another_version_is_not_resumed_unless_it_may(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(versions, "AUGMENTATION_VERSION", 2)
    with pytest.raises(InputError, match="augmentation: 1 -> 2"):
        start(tmp_path)
    assert value_of(start(tmp_path, allow_config_change=True)) == 1
    # Of a finished run, no step is to come.
    assert value_of(start(tmp_path, last_step=5)) == 1


def test_these_numbers_are_those_of_the_versions():
    """Where one of them changes, its version is to be raised."""
    assert (versions.AUGMENTATION_VERSION, versions.ORDER_VERSION) == (1, 1)
    boxes = [
        random_crop_box(_generator(3, position), 640, 427, area_min=0.08)
        for position in range(3)
    ]
    assert boxes == BOXES
    stream = RepeatedStream(
        num_images=7, num_repeats=3, epoch_len_factor=2.0, batch_size=5, seed=3
    )
    assert [stream.sample_ids(step).tolist() for step in (0, 4)] == SAMPLES
    photo = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = augment(
        jax.random.key(3),
        jnp.asarray(photo),
        augmentation="full",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    corner = np.asarray(found)[:, 0, 0]
    np.testing.assert_allclose(corner, np.float32(COLOURS), rtol=0, atol=1e-5)


BOXES = [(147, 30, 522, 407), (16, 0, 457, 412), (47, 13, 579, 414)]
SAMPLES = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 6]]
COLOURS = [
    [-2.00185489654541, -1.907317876815796, -1.6891396045684814],
    [-1.1977981328964233, -1.0703366994857788, -0.8396046161651611],
]
