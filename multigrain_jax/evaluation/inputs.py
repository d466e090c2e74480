"""From a batch of the loader to the trunk's output."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.models.layers import FeatureMap
from multigrain_jax.models.multigrain import Backbone, MultiGrain
from multigrain_jax.ops.color import normalize

# What the devices need of a batch; `index` stays on the host.
NETWORK_INPUTS = ("image", "size", "label", "mask", "bad")


def network_inputs(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of an evaluation batch that go to the devices."""
    return {name: batch[name] for name in NETWORK_INPUTS if name in batch}


def features_of_uint8(
    model: MultiGrain, batch: Mapping[str, jax.Array], *, backbone: Backbone
) -> FeatureMap:
    """The trunk's output for images as they come from the host.

    Args:
        model: in evaluation mode.
        batch: `image` uint8 [B, H, W, 3] and, where images are smaller than their
            canvas, `size` int32 [B, 2].
        backbone: its row of `BACKBONES`, for the input statistics.
    """
    scaled = batch["image"].astype(jnp.float32) / 255.0
    normalized = normalize(scaled, backbone.mean, backbone.std)
    return model.features(normalized, batch.get("size"))
