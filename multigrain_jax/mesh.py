"""The device mesh: one axis, over which batches are split and nothing else."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A one-axis mesh over the first `num_devices` devices of each host (default: all).

    The axis type is Auto: the default, Explicit, refuses the Gram matrix of a sharded
    batch.
    """
    devices = jax.devices()[:num_devices]
    if jax.process_count() > 1:
        # A host's share of a batch is contiguous: so must its devices be.
        devices = [
            device
            for process in range(jax.process_count())
            for device in jax.local_devices(process)[:num_devices]
        ]
        return Mesh(np.array(devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))
    # Positional: the name of the second argument differs between versions of jax.
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def make_own_mesh() -> Mesh:
    """A one-axis mesh over the devices of this host, for what it does by itself."""
    devices = np.array(jax.local_devices())
    return Mesh(devices, (DATA_AXIS,), axis_types=(AxisType.Auto,))


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


def put_whole_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
    """Put a batch that every host has whole on the devices, each its rows."""
    if jax.process_count() == 1:
        return put_batch(mesh, batch)
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        for name, array in batch.items()
    }


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Put a tree of arrays, the same on every host, whole on every device."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(put, tree)
