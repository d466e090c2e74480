"""A trace of some steps: those that were asked for, once, whole."""

import jax
import numpy as np

from multigrain_jax.train.profile import STEPS_BEFORE, StepProfile


def test_steps_are_traced_once(tmp_path):
    profile = StepProfile(tmp_path / "profile", num_steps=2)
    step = profile.around(jax.jit(lambda state, batch: (state + batch, state)))
    state = np.float32(0)
    for count in range(STEPS_BEFORE + 1):
        assert not (tmp_path / "profile").exists(), count
        state, _ = step(state, np.float32(1))
    for _ in range(3):
        state, _ = step(state, np.float32(1))
    profile.close()
    assert float(state) == STEPS_BEFORE + 4
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_a_trace_is_written_where_the_run_ends_early(tmp_path):
    profile = StepProfile(tmp_path / "profile", num_steps=100)
    step = profile.around(lambda state, batch: (state, batch))
    for _ in range(STEPS_BEFORE + 1):
        step(0, 0)
    profile.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_without_steps_to_trace_the_step_is_the_step(tmp_path):
    profile = StepProfile(tmp_path / "profile", num_steps=0)

    def step(state, batch):
        return state, batch

    assert profile.around(step) is step
    profile.close()
    assert not (tmp_path / "profile").exists()
