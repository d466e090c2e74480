"""What holds of every loss that compares instances."""

import jax
import numpy as np
import pytest

from multigrain_jax.mesh import batch_sharding, make_mesh


def check_devices_change_nothing(value_and_gradient, x, ids, *, group_size):
    """One, two and eight devices have the same value and gradient, in float64."""
    with jax.enable_x64(True):
        x = x.astype(np.float64)
        values = []
        for devices in (1, 2, 8):
            split = batch_sharding(make_mesh(devices), axis=0)
            arrays = jax.device_put((x, ids), split)
            values.append(value_and_gradient(*arrays, group_size=group_size))
        for value, gradient in values[1:]:
            np.testing.assert_allclose(value, values[0][0], rtol=1e-12)
            np.testing.assert_allclose(gradient, values[0][1], atol=1e-12)


def check_samples_of_no_instance_do_not_count(value_and_gradient, x):
    """The third view of eight instances has the id -1; then all 24 have."""
    ids = np.repeat(np.arange(8, dtype=np.int32), 3)
    ids[2::3] = -1
    seen = ids >= 0
    value, gradient = value_and_gradient(x, ids)
    alone, alone_gradient = value_and_gradient(x[seen], ids[seen])
    assert float(value) == pytest.approx(float(alone), rel=1e-6)
    np.testing.assert_allclose(gradient[seen], alone_gradient, atol=1e-6)
    assert not gradient[~seen].any()
    none, _ = value_and_gradient(x, np.full(24, -1, np.int32))
    assert float(none) == 0
