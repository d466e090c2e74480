"""Reading: bit-equal, found by workdir or step, and damage that is told."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.checkpoints import flip, save_small, small_items

from multigrain_jax.checkpoint import (
    DamagedCheckpointError,
    checkpoint_steps,
    find_checkpoint,
    load_average,
    load_checkpoint,
    load_optimizer,
    load_optimizer_arrays,
    set_aside,
    storage,
)
from multigrain_jax.checkpoint.loading import reason_in_short
from multigrain_jax.errors import InputError

# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0.0)


def test_what_was_saved_comes_back_bit_equal(tmp_path):
    params = {"trunk": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3)}}}
    tx = optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda step: step))
    model, opt_state = {"params": params, "p": jnp.float32(3.0)}, tx.init(params)
    save_small(tmp_path, 5, model=model, optimizer=opt_state)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.step, loaded.data) == (5, {"position": 80})
    assert loaded.meta == {"backbone": "tiny"}
    jax.tree.map(np.testing.assert_array_equal, loaded.model, model)
    restored = load_optimizer(loaded, like=opt_state)
    assert jax.tree.structure(restored) == jax.tree.structure(opt_state)
    jax.tree.map(np.testing.assert_array_equal, restored, opt_state)


def test_the_average_is_an_item_like_the_model(tmp_path):
    items = small_items(5)
    save_small(tmp_path, 5, **items, ema=small_items(6)["model"])
    last, average = (load_checkpoint(tmp_path, raw=raw) for raw in (True, False))
    assert (last.item, average.item) == ("model", "ema")
    jax.tree.map(np.testing.assert_array_equal, last.model, items["model"])
    jax.tree.map(np.testing.assert_array_equal, average.model, small_items(6)["model"])
    jax.tree.map(np.testing.assert_array_equal, load_average(last), average.model)
    assert last.digests == average.digests
    without = load_checkpoint(save_small(tmp_path / "without"), raw=False)
    assert without.item == "model" and load_average(without) is None
    said = {
        (each.which_weights(raw=raw), raw)
        for each, raw in ((last, True), (average, False), (without, True))
    }
    assert len(said) == 3 and all(words for words, _ in said)
    assert without.which_weights(raw=False) == ""
    assert "without effect" in without.which_weights(raw=True)


def test_a_damaged_average_is_told(tmp_path):
    folder = save_small(tmp_path, 5, ema=small_items(6)["model"])
    for path in (folder / "ema").rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip(path)
    assert load_checkpoint(tmp_path).item == "model"
    with pytest.raises(DamagedCheckpointError, match="ema: "):
        load_checkpoint(tmp_path, raw=False)
    with pytest.raises(DamagedCheckpointError, match="ema: "):
        load_average(load_checkpoint(tmp_path))


def test_step_folder_and_workdir_mean_the_same(tmp_path):
    save_small(tmp_path)
    folder = tmp_path / "checkpoints" / "5"
    assert find_checkpoint(tmp_path) == folder
    assert find_checkpoint(folder) == folder
    with pytest.raises(InputError, match=r"step 7 was expected.*found steps \[5\]"):
        find_checkpoint(tmp_path, step=7)
    with pytest.raises(InputError, match="found none"):
        find_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("where", ["model", "meta", "data"])
def test_damage_is_noticed(tmp_path, where):
    save_small(tmp_path)
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
        load_checkpoint(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def assert_says_what_is_damaged(message, name):
    """The message names the file or its array, in a line, and the remedy."""
    first, *problems = message.splitlines()
    assert "use another step or a copy" in first
    for problem in problems:
        assert problem.startswith(f"  {name.parts[0]}: ") and len(problem) < 350
        assert name.name in problem or "params." in problem or "trace" in problem


@pytest.mark.parametrize("damage", [flip, truncate, os.remove])
def test_a_damaged_file_is_noticed_or_harmless(tmp_path, damage):
    folder = save_small(tmp_path / "whole")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    noticed = []
    for number, name in enumerate(files):
        if not (folder / name).stat().st_size and damage is not os.remove:
            continue
        copy = tmp_path / str(number) / "checkpoints" / "5"
        shutil.copytree(folder, copy)
        damage(copy / name)
        try:
            loaded = load_checkpoint(copy)
            optimizer = load_optimizer_arrays(loaded)
        except DamagedCheckpointError as error:
            noticed.append(str(name))
            assert_says_what_is_damaged(str(error), name)
            continue
        expected = small_items(5)
        jax.tree.map(np.testing.assert_array_equal, loaded.model, expected["model"])
        jax.tree.map(np.testing.assert_array_equal, optimizer, expected["optimizer"])
        assert (loaded.meta, loaded.data) == ({"backbone": "tiny"}, {"position": 80})
    # Nodes of the store's trees that newer ones replace may be broken without harm.
    largest = max((folder / "model").rglob("*"), key=lambda path: path.stat().st_size)
    kernel = str(largest.relative_to(folder))
    assert {"meta/metadata", "data/metadata", kernel} <= set(noticed)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b'"value_metadata"', b'"value_mEtadata"', "KeyError: 'value_metadata'"),
        (b'"tree_metadata"', b'"tree\xffmetadata"', "UnicodeDecodeError"),
        (b"{", b"[", "JSONDecodeError"),
    ],
)
def test_damage_to_the_structure_names_its_file(tmp_path, before, after, reason):
    file = save_small(tmp_path) / "model" / "_METADATA"
    content = file.read_bytes()
    assert before in content
    file.write_bytes(content.replace(before, after))
    with pytest.raises(DamagedCheckpointError, match=f"  model: _METADATA: {reason}"):
        load_checkpoint(tmp_path)


def test_a_long_reason_is_cut_after_the_place(tmp_path):
    place = f'DATA_LOSS: Error reading local file "{tmp_path}/model/d/1bd77e"'
    settings = "[tensorstore_spec='{}']"
    error = ValueError(f"{place}: {'; at byte 233' * 50} {settings}")
    reason = reason_in_short(error, tmp_path)
    assert reason.startswith('DATA_LOSS: Error reading local file "model/d/1bd77e": ')
    assert reason.endswith("…") and len(reason) == 300
    short = reason_in_short(ValueError(f"{place} {settings}"), tmp_path)
    assert short == 'DATA_LOSS: Error reading local file "model/d/1bd77e"'


def test_a_checkpoint_without_optimizer_says_so(tmp_path):
    save_small(tmp_path, optimizer=None)
    loaded = load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="init_from"):
        load_optimizer(loaded, like={})


def test_only_finished_saves_are_steps(tmp_path):
    names = ("10", "9", "11.orbax-checkpoint-tmp", "12.damaged", "notes")
    for name in names:
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [9, 10]
    assert checkpoint_steps(tmp_path / "none") == []


def test_what_is_set_aside_is_found_no_more(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / content).touch()
        assert set_aside(tmp_path / "5") == tmp_path / "5.damaged"
    assert checkpoint_steps(tmp_path) == []
    # The older one has gone.
    assert [path.name for path in (tmp_path / "5.damaged").iterdir()] == ["second"]


def test_a_step_and_a_file_are_not_mistaken_for_a_workdir(tmp_path):
    folder = save_small(tmp_path)
    with pytest.raises(InputError, match="this is one step's folder, but step 7"):
        find_checkpoint(folder, step=7)
    with pytest.raises(InputError, match=r"found a file; .*`multigrain convert`"):
        find_checkpoint(folder / "model" / "_METADATA")
    assert find_checkpoint(folder.parent) == folder
