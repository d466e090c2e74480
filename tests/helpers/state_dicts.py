"""State dicts of the tiny network, and what people put around them."""

from typing import Any

import ml_dtypes
import numpy as np

from multigrain_jax.convert.state_dict import export_state_dict
from multigrain_jax.models.multigrain import create_model, split_model

StateDict = dict[str, Any]
NUM_CLASSES = 3
NUM_FLOATS = 27  # arrays of floats of the tiny network; the rest are counters


def tiny_reference() -> StateDict:
    """The tiny network's state dict as the original names its keys, p = 3.

    Its numbers fit into float16 and bfloat16, and no array is constant, so that none
    can stand for another.
    """
    rng = np.random.default_rng(0)
    model = create_model("tiny", num_classes=NUM_CLASSES, seed=1)
    state_dict = export_state_dict(split_model(model)[1], backbone="tiny")
    for key, value in state_dict.items():
        if value.dtype == np.float32:
            drawn = rng.integers(1, 127, value.shape) / 64
            state_dict[key] = np.asarray(drawn, np.float32)
    return {**state_dict, "pool.p": np.array(3, np.float32)}


def tiny_zoo() -> StateDict:
    """The same as torchvision and timm name them."""
    return {
        key.removeprefix("features.").replace("classifier", "fc"): value
        for key, value in tiny_reference().items()
        if key != "pool.p"
    }


def prefixed(prefix: str, state_dict: StateDict) -> StateDict:
    """With something before every key."""
    return {prefix + key: value for key, value in state_dict.items()}


def without(state_dict: StateDict, *beginnings: str) -> StateDict:
    """Without the keys that begin so."""
    return {k: v for k, v in state_dict.items() if not k.startswith(beginnings)}


def plus_one(state_dict: StateDict) -> StateDict:
    """Every float by one larger."""
    return {k: v + 1 if v.dtype.kind == "f" else v for k, v in state_dict.items()}


def cast(state_dict: StateDict, kind: str) -> StateDict:
    """Every float of another type."""
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    return {
        k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in state_dict.items()
    }


def projector(prefix: str) -> StateDict:
    """What is trained beside a trunk."""
    shapes = {"projector.0.weight": (4, 8), "projector.0.bias": (4,)}
    return {f"{prefix}{k}": ones(*shape) for k, shape in shapes.items()}


def ones(*shape: int) -> np.ndarray:
    """An array of ones."""
    return np.ones(shape, np.float32)
