"""Two processes with two fake devices each do what one with four does."""

import json
import re
import signal

import jax
import numpy as np
import pytest
from helpers.hosts import (
    TIMEOUT,
    assert_close,
    embed_validation,
    hosts,
    train_on_one,
    train_on_two,
    use_devices,
)

from multigrain_jax.checkpoint import (
    checkpoint_steps,
    load_checkpoint,
    load_optimizer_arrays,
)
from multigrain_jax.mesh import make_mesh


def wait_for(process, line):
    lines = []
    for text in process.stdout:
        lines.append(text)
        if text.startswith(line):
            return
    raise AssertionError("".join(lines))


def kill_at(photos, workdir, line):
    with hosts(photos, workdir) as processes:
        wait_for(processes[0], line)


def rows_of(workdir):
    return list(map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_one_two_and_one_process_continue_each_other(photos, tmp_path, monkeypatch):
    one, many = tmp_path / "one", tmp_path / "many"
    use_devices(monkeypatch, 4)
    with jax.enable_x64(True):
        train_on_one(photos, one)
        alone = embed_validation(photos, one, make_mesh(4))
        train_on_one(photos, many, stop=3)
    kill_at(photos, many, "step 7/10")
    assert checkpoint_steps(many / "checkpoints") == [3, 5]
    said = train_on_two(photos, many, stop=8, embed=one, output=tmp_path / "two.npz")
    assert "resuming from" in said[0] and "step 8/10" in said[0]
    assert "step 8/10" not in said[1]
    with jax.enable_x64(True):
        train_on_one(photos, many)

    samples = [(path / "sample_ids.jsonl").read_text() for path in (one, many)]
    assert samples[0] == samples[1]
    whole, resumed = load_checkpoint(one), load_checkpoint(many)
    assert (whole.step, resumed.step) == (10, 10)
    assert whole.data == resumed.data
    assert_close(whole.model, resumed.model)
    assert_close(load_optimizer_arrays(whole), load_optimizer_arrays(resumed))
    rows = [
        {
            (row["step"], name): value
            for row in rows_of(path)
            for name, value in row.items()
        }
        for path in (one, many)
    ]
    same = [name for name in rows[0] if not name[1].endswith(("second", "fraction"))]
    np.testing.assert_allclose(
        [rows[1][name] for name in same], [rows[0][name] for name in same], rtol=1e-9
    )
    assert (5, "val/top1") in same
    with np.load(tmp_path / "two.npz") as together:
        assert len(alone.labels) == 6
        np.testing.assert_array_equal(together["labels"], alone.labels)
        np.testing.assert_allclose(
            together["descriptors"], alone.descriptors, atol=1e-6
        )


@pytest.mark.slow
def test_a_signal_to_one_host_stops_both_at_the_same_step(photos, tmp_path):
    with hosts(photos, tmp_path / "run", epochs=400) as processes:
        wait_for(processes[0], "step 1/2000")
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
        assert [p.returncode for p in processes] == [0, 0], "\n".join(said)
    steps = [re.findall(r"after step (\d+) of 2000", text) for text in said]
    assert steps[0] == steps[1] and len(steps[0]) == 1, "\n".join(said)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints")[-1] == int(steps[0][0])
