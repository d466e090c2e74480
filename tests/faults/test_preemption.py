"""Being asked to leave: by a signal, at any moment, or by a deadline."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from helpers.commands import ENVIRONMENT, TRAINING
from helpers.configs import fault_config

from measure.commands import ROOT, command_line
from multigrain_jax.checkpoint import checkpoint_steps, describe_checkpoint
from multigrain_jax.checkpoint import store as checkpoint_store
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.evaluation import classification
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks.train import run


def send(number):
    os.kill(os.getpid(), number)


def rows_of(workdir):
    """The metrics but for the timings."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    timings = ("train/images_per_second", "train/data_wait_fraction")
    return [{k: v for k, v in row.items() if k not in timings} for row in rows]


@pytest.fixture(scope="module")
def config(photos):
    config = fault_config(photos, log_sample_ids=True)
    config.data.val_split = "val"
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The workdir of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    run(config, workdir)
    return workdir


def assert_equal_runs(workdir, whole):
    assert describe_checkpoint(workdir).digest == describe_checkpoint(whole).digest
    samples = [(path / "sample_ids.jsonl").read_text() for path in (workdir, whole)]
    assert samples[0] == samples[1]
    assert rows_of(workdir) == rows_of(whole)


def signal_at(monkeypatch, step_number, number):
    """Send a signal while a training step runs."""
    real = run_module.make_step

    def make_step(config, built):
        train_step = real(config, built)

        def step(state, batch):
            calls.append(0)
            if len(calls) == step_number:
                send(number)
            return train_step(state, batch)

        return step

    calls = []
    monkeypatch.setattr(run_module, "make_step", make_step)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_a_random_step_loses_nothing(
    config, whole, tmp_path, monkeypatch, number
):
    step = random.Random(int(number)).randint(1, 9)
    signal_at(monkeypatch, step, number)
    with pytest.raises(StoppedEarly, match=f"after step {step} of 10"):
        run(config, tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == step
    run(config, tmp_path)
    assert_equal_runs(tmp_path, whole)


def test_a_signal_during_a_save_loses_nothing(config, whole, tmp_path, monkeypatch):
    real, saved = checkpoint_store.ocp.CheckpointManager.save, []

    def save(self, step, **arguments):
        saved.append(step)
        if len(saved) == 1:
            send(signal.SIGTERM)
        return real(self, step, **arguments)

    monkeypatch.setattr(checkpoint_store.ocp.CheckpointManager, "save", save)
    with pytest.raises(StoppedEarly):
        run(config, tmp_path)
    run(config, tmp_path)
    assert_equal_runs(tmp_path, whole)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_validation_that_is_broken_off_is_made_up_for(
    config, whole, tmp_path, monkeypatch, number
):
    """Number 1 is before the first step, 2 after the first epoch, 3 at the end."""
    real, calls = classification.evaluate_classification, []

    def evaluate(*arguments, **named):
        calls.append(0)
        if len(calls) == number:
            send(signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr(run_module, "evaluate_classification", evaluate)
    with pytest.raises(StoppedEarly, match=f"after step {5 * (number - 1)} of 10"):
        run(config, tmp_path)
    results = run(config, tmp_path)
    assert "val/top1" in results
    assert len(calls) == 4
    rows = sorted(rows_of(tmp_path), key=lambda row: (row["step"], "val/top1" in row))
    expected = sorted(rows_of(whole), key=lambda row: (row["step"], "val/top1" in row))
    assert rows == expected
    assert describe_checkpoint(tmp_path).digest == describe_checkpoint(whole).digest


def test_the_results_of_a_finished_run_stay(config, whole, tmp_path):
    before = json.loads((whole / "results.json").read_text())
    after = run(config, whole)
    assert {k: v for k, v in after.items() if k != "seconds"} == {
        k: v for k, v in before.items() if k != "seconds"
    }


def test_a_run_leaves_before_its_deadline(config, whole, tmp_path):
    # Everything is compiled already, and the reserve is proportional to what a step
    # takes: after one step a deadline that has passed already ends the run.
    with config.unlocked():
        limited = config.copy_and_resolve_references()
    limited.max_train_hours = 1e-6
    limited.validate_first = False
    with pytest.raises(StoppedEarly, match="after step 1 of 10"):
        run(limited, tmp_path)
    limited.max_train_hours = 1.0
    run(limited, tmp_path)
    assert describe_checkpoint(tmp_path).digest == describe_checkpoint(whole).digest


@pytest.mark.slow
def test_the_command_leaves_with_code_3_and_continues(photos, tmp_path):
    settings = {**TRAINING, "data.root": photos, "num_epochs": 400}
    command = command_line("base", tmp_path / "run", settings)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("step 7/"):
                break
        # As `| head` does; the run goes on, and tells who can still read it.
        process.stdout.close()
        line = process.stderr.readline()
        assert line.startswith("nobody reads the output any more; the run goes on, in")
        asked = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read().startswith("stopped: after step ")
        assert process.wait(timeout=60) == 3
        assert time.perf_counter() - asked < 30
    step = checkpoint_steps(tmp_path / "run" / "checkpoints")[-1]
    assert step >= 7
    command.append(f"--config.stop_at_step={step + 2}")
    again = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 3, again.stderr
    assert f"resuming from {tmp_path / 'run' / 'checkpoints' / str(step)}" in (
        again.stdout
    )
