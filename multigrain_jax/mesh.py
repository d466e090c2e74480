"""The device mesh: one axis, over which batches are split and nothing else."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A one-axis mesh over the first `num_devices` devices (default: all).

    The axis type is Auto: the default, Explicit, refuses the Gram matrix of a sharded
    batch.
    """
    devices = jax.devices()[:num_devices]
    # Positional: the name of the second argument differs between versions of jax.
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of everything that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The sharding of an array whose dimension `axis` runs over the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def put_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], *, axis: int = 0
) -> dict[str, jax.Array]:
    """Put this host's share of a batch on its devices, as global arrays.

    Args:
        mesh: the mesh.
        batch: arrays whose dimension `axis` is this host's contiguous share.
        axis: the dimension that runs over the batch.
    """
    sharding = batch_sharding(mesh, axis=axis)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Put a tree of arrays whole on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def compute_dtype(name: str) -> np.dtype:
    """The dtype that a config names; "auto" is bfloat16, but float32 on CPUs."""
    on_cpu = jax.default_backend() == "cpu"
    return jnp.dtype(name if name != "auto" else "float32" if on_cpu else "bfloat16")
