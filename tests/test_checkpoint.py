import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from multigrain_jax import checkpoint, trees
from multigrain_jax.errors import InputError


def example():
    params = {"trunk": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3)}}}
    tx = optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda step: step))
    return {"params": params, "pooling_exponent": jnp.float32(3.0)}, tx.init(params)


def save(workdir, step=5, **items):
    model, opt_state = example()
    store = checkpoint.CheckpointStore(workdir, keep_every_steps=10)
    arguments = {
        "model": model,
        "optimizer": opt_state,
        "data": {"step": step},
        "meta": {"backbone": "tiny"},
    }
    store.save(step, **(arguments | items))
    store.close()
    return model, opt_state


def test_round_trip_is_bit_equal(tmp_path):
    model, opt_state = save(tmp_path)
    loaded = checkpoint.load_checkpoint(tmp_path)
    assert (loaded.step, loaded.data, loaded.meta) == (
        5,
        {"step": 5},
        {"backbone": "tiny"},
    )
    jax.tree.map(np.testing.assert_array_equal, loaded.model, model)
    restored = checkpoint.load_optimizer(loaded, like=opt_state)
    assert jax.tree.structure(restored) == jax.tree.structure(opt_state)
    jax.tree.map(np.testing.assert_array_equal, restored, opt_state)


def test_step_folder_and_workdir_mean_the_same(tmp_path):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "5"
    assert checkpoint.find_checkpoint(tmp_path) == folder
    assert checkpoint.find_checkpoint(folder) == folder
    with pytest.raises(InputError, match=r"step 7 was expected.*found steps \[5\]"):
        checkpoint.find_checkpoint(tmp_path, step=7)
    with pytest.raises(InputError, match="found none"):
        checkpoint.find_checkpoint(tmp_path / "nowhere")


def test_saving_a_step_twice_is_refused(tmp_path):
    save(tmp_path)
    with pytest.raises(Exception, match="5"):
        save(tmp_path)


def test_last_and_every_tenth_are_kept(tmp_path):
    model, _ = example()
    store = checkpoint.CheckpointStore(tmp_path, keep_every_steps=10)
    for step in (5, 10, 15, 20, 25):
        store.save(step, model=model, meta={})
    store.close()
    assert store.steps() == [10, 20, 25]
    assert store.delete_after(10) == [20, 25]


@pytest.mark.parametrize("where", ["model", "meta", "data"])
def test_damage_is_noticed(tmp_path, where):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "5" / where
    victims = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 0]
    assert victims
    for path in victims:
        if path.name == "commit_success.txt":
            continue
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or incomplete"):
        checkpoint.load_checkpoint(tmp_path)


def test_other_structure_is_listed_whole():
    nested = {"a": np.zeros(3), "b": {"c": np.zeros(2, np.float32)}}
    like = {"a": np.zeros(4), "b": {"d": np.zeros(2, np.float32)}}
    with pytest.raises(InputError) as error:
        trees.nested_to_tree(nested, like=like, name="model")
    for line in ("missing: b.d", "not expected: b.c", "a: found float64[3]"):
        assert line in str(error.value)


def test_a_checkpoint_without_optimizer_says_so(tmp_path):
    save(tmp_path, optimizer=None)
    loaded = checkpoint.load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="init_from"):
        checkpoint.load_optimizer(loaded, like={})
