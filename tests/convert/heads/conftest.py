"""Files of other networks, converted by the tool, beside what their code computes."""

import numpy as np
import pytest

from multigrain_jax.inference import load_model


@pytest.fixture(scope="module")
def images():
    """Normalised pixels of two images of coloured squares, channels last."""
    squares = np.random.default_rng(0).standard_normal((2, 8, 9, 3), np.float32)
    return squares.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture
def descriptors_differ(torch, images):
    """(workdir, describe) -> the largest difference of a number of the descriptors."""

    def differ(workdir, describe):
        want = describe(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        output = load_model(workdir)(images)
        assert output.logits is None
        found = np.asarray(output.normalized_embedding)
        assert found.shape == want.shape
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        difference = float(np.abs(found - want).max())
        # Nor does it tell one image from the other.
        assert difference < 0.01 * np.abs(want[0] - want[1]).max()
        return difference

    return differ
