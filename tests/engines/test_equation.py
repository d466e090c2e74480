"""An equation has what rules read."""

import numpy as np

from multigrain_jax.engines.equation import Equation, Unsupported


def test_an_equation_says_shapes_and_parameters():
    found = Equation(((2, 3), ()), (2, 3), np.dtype(np.float32), {"axes": (0,)})
    assert found.params["axes"] == (0,) and found.shapes[0] == found.shape
    assert issubclass(Unsupported, Exception)
