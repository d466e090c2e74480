"""What a run does not waste time on, and what it says about the time it takes."""

import itertools
import re
import time
from functools import partial

import jax
import pytest
from helpers.configs import small_train_config
from helpers.photos import write_noise_photos

from multigrain_jax.errors import InputError, StoppedEarly
from multigrain_jax.metric_writer import MetricWriter
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.runtime import compiler_options
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks.train import run

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two splits of two classes of noise."""
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        write_noise_photos(root / split, ("a", "b"), count=8)
    return root


# Four steps an epoch, two epochs, one checkpoint.
make_config = partial(
    small_train_config,
    batch_size=8,
    sampling_group_size=8,
    checkpoint_every_epochs=2,
)


@pytest.fixture
def events(monkeypatch):
    """The rows that a run writes and "compiled" for each program, in order."""
    seen = []

    def listener(name, seconds, **details):
        del seconds, details
        if name == COMPILED:
            seen.append("compiled")

    write = MetricWriter.write

    def recorded(self, step, metrics):
        seen.append(f"{step} {'val' if 'val/top1' in metrics else 'train'}")
        write(self, step, metrics)

    monkeypatch.setattr(MetricWriter, "write", recorded)
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listener)


@pytest.mark.slow
def test_nothing_is_compiled_after_the_first_step_and_evaluation(
    photos, tmp_path, events, capsys
):
    run(make_config(photos), tmp_path)
    begun = events.index("1 train")
    assert events.index("0 val") < begun and "compiled" in events[:begun]
    # Four steps an epoch; the only save comes after the last row.
    assert events[begun : events.index("8 val") + 1] == [
        *(f"{step} train" for step in range(1, 5)),
        "4 val",
        *(f"{step} train" for step in range(5, 9)),
        "8 val",
    ]
    printed = capsys.readouterr().out
    assert len(re.findall(r"first step after \d+\.\d s", printed)) == 1


@pytest.mark.slow
def test_a_step_of_another_shape_would_be_noticed(photos, tmp_path, events):
    config = make_config(photos, num_epochs=1)
    make_step = run_module.make_step

    def uneven(config, built):
        step = make_step(config, built)
        calls = itertools.count(1)
        other = make_step(config | {"classification_weight": 0.25}, built)
        return lambda *arrays: (other if next(calls) == 3 else step)(*arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "make_step", uneven)
        run(config, tmp_path)
    assert "compiled" in events[events.index("2 train") : events.index("3 train")]


def test_waiting_for_data_is_said_once_with_the_remedy(
    photos, tmp_path, monkeypatch, capsys
):
    make_feed = run_module.make_feed

    def slow(*arguments, **options):
        for batch in make_feed(*arguments, **options):
            time.sleep(0.3)
            yield batch

    monkeypatch.setattr(run_module, "make_feed", slow)
    run(make_config(photos, num_epochs=1), tmp_path)
    (line,) = re.findall(r".*waiting for data.*", capsys.readouterr().out)
    assert "raise num_workers (now 0; this machine has " in line


@pytest.mark.slow
def test_a_run_traces_the_steps_that_it_is_told_to(photos, tmp_path):
    # Four steps an epoch: the eleventh and the twelfth are traced.
    run(make_config(photos, num_epochs=3, profile_steps=2), tmp_path)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    written = trace.read_bytes()
    assert b"step_num" in written and b"train" in written


@pytest.mark.slow
def test_a_deterministic_run_compiles_as_told(photos, tmp_path, monkeypatch):
    found = []
    jit = jax.jit

    def recorded(function, **options):
        # Only the training step gives its state away.
        if "donate_argnums" in options:
            found.append(options["compiler_options"])
        return jit(function, **options)

    for deterministic in (False, True):
        config = make_config(photos, deterministic=deterministic, stop_at_step=1)
        with monkeypatch.context() as patch, pytest.raises(StoppedEarly):
            patch.setattr("multigrain_jax.train.step.jax.jit", recorded)
            run(config, tmp_path / str(deterministic))
    backbone = BACKBONES[config.backbone]
    assert found == [
        compiler_options(backbone),
        compiler_options(backbone, deterministic=True),
    ]
    assert [options.get("xla_gpu_deterministic_ops") for options in found] == [
        None,
        True,
    ]


def test_less_than_no_step_cannot_be_traced(photos, tmp_path):
    with pytest.raises(InputError, match="profile_steps: found -1"):
        run(make_config(photos, profile_steps=-1), tmp_path)
