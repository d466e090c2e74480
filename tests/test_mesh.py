"""Where arrays lie on the devices."""

import jax
import numpy as np
import pytest

from multigrain_jax.mesh import (
    batch_sharding,
    make_mesh,
    make_own_mesh,
    put_batch,
    put_replicated,
    put_whole_batch,
    replicated,
)

BATCH = {"image": np.arange(32).reshape(8, 4), "label": np.arange(8)}


@pytest.mark.parametrize("count", [1, 4, None])
def test_a_mesh_has_one_axis_over_the_first_devices(count):
    mesh = make_mesh(count)
    assert dict(mesh.shape) == {"data": count or jax.device_count()}
    assert list(mesh.devices) == jax.devices()[:count]


def test_a_host_has_a_mesh_of_its_own_devices():
    mesh = make_own_mesh()
    assert dict(mesh.shape) == {"data": jax.local_device_count()}
    assert list(mesh.devices) == jax.local_devices()


def test_of_several_hosts_each_gives_its_first_devices(monkeypatch):
    """In the hosts' order, whatever order JAX lists them in."""
    devices = jax.devices()
    own = {0: devices[4:], 1: devices[:4]}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", own.__getitem__)
    assert list(make_mesh(2).devices) == devices[4:6] + devices[:2]
    assert list(make_mesh().devices) == devices[4:] + devices[:4]


def rows_by_device(array):
    """What each device holds, in the devices' order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data).tolist() for shard in shards]


def test_every_device_has_its_rows_of_a_batch():
    mesh = make_mesh(4)
    found = put_batch(mesh, BATCH)
    assert rows_by_device(found["label"]) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for name, array in found.items():
        np.testing.assert_array_equal(array, BATCH[name])
        assert array.sharding.is_equivalent_to(batch_sharding(mesh), array.ndim)


def test_microbatches_are_cut_along_their_second_axis():
    found = put_batch(make_mesh(2), {"label": np.arange(8).reshape(2, 4)}, axis=1)
    assert rows_by_device(found["label"]) == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_batch_that_all_hosts_have_is_cut_alike(monkeypatch, hosts):
    mesh = make_mesh(4)
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    found = put_whole_batch(mesh, BATCH)
    assert rows_by_device(found["label"]) == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("hosts", [1, 2])
def test_what_is_replicated_is_whole_on_every_device(monkeypatch, hosts):
    mesh = make_mesh(4)
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    found = put_replicated(mesh, {"a": np.arange(3), "b": [np.float32(2)]})
    assert rows_by_device(found["a"]) == [[0, 1, 2]] * 4
    assert rows_by_device(found["b"][0]) == [2.0] * 4
    assert found["a"].sharding.is_equivalent_to(replicated(mesh), 1)
