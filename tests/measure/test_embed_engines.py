"""The engines that descriptors are compared with compute the same network."""

import jax
import numpy as np
import pytest

from measure.embed import named_arrays
from measure.embed_engines import onnxruntime, openvino, pytorch, write_onnx
from multigrain_jax.models.folding import fold_batch_norms
from multigrain_jax.models.multigrain import create_model, merge_model, split_model


@pytest.fixture(scope="module")
def network():
    """Folded weights by name, images, and their descriptors."""
    model = create_model("tiny", num_classes=0)
    model.eval()
    folded = fold_batch_norms(*split_model(model))
    images = np.random.default_rng(0).standard_normal((2, 33, 40, 3), np.float32)
    want = jax.jit(lambda v, x: merge_model(folded[0], v)(x))(folded[1], images)
    return named_arrays(folded[1].params["trunk"]), images, want.normalized_embedding


def onnx_file(weights, folder):
    pytest.importorskip("onnx")
    write_onnx(weights, folder / "network.onnx")
    return folder / "network.onnx"


ENGINES = {
    "torch": lambda weights, folder: pytorch(weights, compiled=False),
    "onnxruntime": lambda weights, folder: onnxruntime(onnx_file(weights, folder)),
    "openvino": lambda weights, folder: openvino(onnx_file(weights, folder)),
}


@pytest.mark.parametrize("name", ENGINES)
def test_descriptors_are_the_same(name, network, tmp_path):
    pytest.importorskip(name)
    weights, images, want = network
    found = ENGINES[name](weights, tmp_path)(images)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)
