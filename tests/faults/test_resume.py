"""Where a run is resumed, and on what, changes nothing."""

import json

import jax
import numpy as np
import pytest
from helpers.configs import fault_config
from helpers.hosts import use_devices

from multigrain_jax.checkpoint import (
    describe_checkpoint,
    load_checkpoint,
    load_optimizer_arrays,
)
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.tasks.train import run


def samples_of(workdir):
    return (workdir / "sample_ids.jsonl").read_text()


def losses_of(workdir):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: (row["train/loss"], row["learning_rate"]) for row in rows}


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The workdir of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    run(fault_config(photos, log_sample_ids=True), workdir)
    return workdir


def test_the_run_has_the_edges_that_are_looked_at(whole):
    stream = RepeatedStream(
        num_images=33, num_repeats=3, epoch_len_factor=2.4, batch_size=16, seed=0
    )
    assert stream.steps_per_epoch == 5
    # The group at the end of batch 4 goes on in batch 5.
    assert stream.sample_ids(3)[-1] == stream.sample_ids(4)[0]
    rates = {step: rate for step, (_, rate) in losses_of(whole).items()}
    np.testing.assert_allclose([rates[5], rates[6]], [0.05, 0.005], rtol=1e-6)


# In a cut group; at the edge of the epoch, where the learning rate drops; after both.
@pytest.mark.parametrize("stops", [(4,), (5,), (6,), (2, 5, 8)])
def test_resumed_anywhere_it_is_bit_equal(photos, whole, tmp_path, stops):
    for stop in stops:
        with pytest.raises(StoppedEarly, match=f"after step {stop} of 10"):
            run(fault_config(photos, log_sample_ids=True, stop_at_step=stop), tmp_path)
    run(fault_config(photos, log_sample_ids=True), tmp_path)
    assert describe_checkpoint(tmp_path).digest == describe_checkpoint(whole).digest
    assert samples_of(tmp_path) == samples_of(whole)
    assert losses_of(tmp_path) == losses_of(whole)


@pytest.mark.slow
def test_one_four_and_two_devices_continue_each_other(photos, tmp_path, monkeypatch):
    def config(**changes):
        return fault_config(
            photos, log_sample_ids=True, compute_dtype="float64", **changes
        )

    with jax.enable_x64(True):
        use_devices(monkeypatch, 1)
        run(config(), tmp_path / "one")
        for count, stop in ((1, 3), (4, 6), (2, None)):
            use_devices(monkeypatch, count)
            try:
                run(config(stop_at_step=stop), tmp_path / "many")
            except StoppedEarly:
                assert stop is not None
    assert samples_of(tmp_path / "many") == samples_of(tmp_path / "one")
    one, many = (load_checkpoint(tmp_path / name) for name in ("one", "many"))
    assert one.model["params"]["classifier"]["kernel"].dtype == np.float64
    pairs = [
        (one.model, many.model),
        (load_optimizer_arrays(one), load_optimizer_arrays(many)),
    ]
    for a, b in pairs:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(
                y, x, rtol=0, atol=1e-9 * max(1e-30, np.max(np.abs(x), initial=0))
            ),
            a,
            b,
        )


def test_a_changed_config_is_told_or_refused(photos, tmp_path, capsys):
    with pytest.raises(StoppedEarly):
        run(fault_config(photos, stop_at_step=2), tmp_path)
    with pytest.raises(InputError, match=r"batch_size: 16 -> 8.*(?s:.)*another"):
        run(fault_config(photos, batch_size=8), tmp_path)
    with pytest.raises(StoppedEarly):
        run(fault_config(photos, learning_rate=0.01, stop_at_step=3), tmp_path)
    assert "config changed: learning_rate: 0.05 -> 0.01" in capsys.readouterr().out


def test_other_images_are_refused(photos, tmp_path):
    with pytest.raises(StoppedEarly):
        run(fault_config(photos, stop_at_step=2), tmp_path)
    fewer = fault_config(photos, allow_config_change=False)
    fewer.data.num_images = 30
    with pytest.raises(InputError, match=r"num_images: None -> 30"):
        run(fewer, tmp_path)


@pytest.mark.slow
def test_with_known_instances_it_is_bit_equal_too(photos, tmp_path):
    def config(**changes):
        data = {"val_split": None, "instances": "1", "photos_per_instance": 3}
        return fault_config(
            photos, log_sample_ids=True, num_repeats=1, data=data, **changes
        )

    run(config(), tmp_path / "whole")
    with pytest.raises(StoppedEarly):
        run(config(stop_at_step=4), tmp_path / "cut")
    run(config(), tmp_path / "cut")
    one, other = tmp_path / "cut", tmp_path / "whole"
    assert describe_checkpoint(one).digest == describe_checkpoint(other).digest
    assert samples_of(one) == samples_of(other)
    assert losses_of(one) == losses_of(other)
    rows = map(json.loads, samples_of(one).splitlines())
    # The samples that are written are photos, 33 of them, not the three instances.
    assert {index for row in rows for index in row["sample_ids"]} == set(range(33))
    with pytest.raises(InputError, match=r"data\.instances: '1' -> None"):
        run(fault_config(photos, num_repeats=1, classification_weight=1.0), one)
