"""Where a run begins, with states of a few numbers in place of a network's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.checkpoints import flip

from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.errors import InputError
from multigrain_jax.train.start import Beginning, open_checkpoints, start_state
from multigrain_jax.train.state import TrainState, checkpoint_model

TX = optax.trace(decay=0.9)
STREAM = RepeatedStream(
    num_images=9, num_repeats=1, epoch_len_factor=1.0, batch_size=4, seed=0
)
RECORD = {"seed": 0, "learning_rate": 0.1}
FROM_SCRATCH = Beginning(
    backbone="tiny",
    init_from=None,
    init_step=None,
    pretrained_backbone=None,
    resume_step=None,
    allow_config_change=False,
    dry_run=False,
)
# Reads that are still under way when one of them finds damage complete to nobody.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def make_state(value=0.0, *, num_classes=2, step=0, exponent=3.0):
    """A state whose every number is `value`, but for the exponent."""

    def full(*shape):
        return jnp.full(shape, value, jnp.float32)

    classifier = {"kernel": full(3, num_classes), "bias": full(num_classes)}
    params = {"trunk": {"kernel": full(2, 3)}, "classifier": classifier}
    params["margin"] = {"beta": full()}
    opt_state = jax.tree.map(lambda x: x + 1, TX.init(params))
    return TrainState(
        step=jnp.int32(step),
        params=params,
        batch_stats={"trunk": {"mean": full(3)}},
        pooling_exponent=jnp.float32(exponent),
        opt_state=opt_state if step else TX.init(params),
    )


def save(workdir, *values, step=5, backbone="tiny", num_images=9, **changes):
    """Checkpoints of a run at multiples of `step`, each of its value."""
    store = CheckpointStore(workdir)
    for number, value in enumerate(values, start=1):
        state = make_state(value, step=number * step, **changes)
        num_classes = state.params["classifier"]["bias"].size
        store.save(
            number * step,
            model=checkpoint_model(state),
            optimizer=state.opt_state,
            data={"position": 4 * number * step, "num_images": num_images},
            meta={"backbone": backbone, "num_classes": num_classes, "config": RECORD},
        )
    store.close()
    return workdir


def start(workdir, *, fresh=None, record=RECORD, **changes):
    return start_state(
        dataclasses.replace(FROM_SCRATCH, **changes),
        workdir,
        fresh=fresh or make_state(-1.0),
        tx=TX,
        stream=STREAM,
        record=record,
    )


def damage(workdir, step, item="model"):
    for path in (workdir / "checkpoints" / str(step) / item).rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip(path)


def value_of(state):
    return float(state.params["trunk"]["kernel"][0, 0])


def test_the_order_of_beginnings(tmp_path):
    """Each is taken although the ones after it are given, and lead nowhere."""
    own, other, trunk = (save(tmp_path / str(n), n) for n in (1, 2, 3))
    nowhere = str(tmp_path / "nowhere")
    later = {"init_from": nowhere, "pretrained_backbone": nowhere}
    assert value_of(start(own, **later)) == 1
    later["init_from"] = str(other)
    assert value_of(start(tmp_path / "new", **later)) == 2
    later = {"pretrained_backbone": str(trunk)}
    assert value_of(start(tmp_path / "new", **later)) == 3
    fresh = make_state(-1.0)
    assert start(tmp_path / "new", fresh=fresh) is fresh


def test_a_step_to_resume_needs_a_workdir_with_checkpoints(tmp_path):
    with pytest.raises(InputError, match=r"resume_step = 5: .* has no checkpoints"):
        start(tmp_path, resume_step=5)


def test_a_resumed_state_is_the_saved_one(tmp_path, capsys):
    save(tmp_path, 1, 2)
    found = start(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found, make_state(2, step=10))
    assert f"resuming from {tmp_path / 'checkpoints' / '10'}" in capsys.readouterr().out
    found = start(tmp_path, resume_step=5)
    jax.tree.map(np.testing.assert_array_equal, found, make_state(1, step=5))


def test_another_config_or_other_images_are_told_or_refused(tmp_path, capsys):
    save(tmp_path, 1, num_images=8)
    changed = {**RECORD, "learning_rate": 0.2}
    with pytest.raises(InputError, match="9 images found, the run was started with 8"):
        start(tmp_path, record=changed)
    assert "config changed: learning_rate: 0.1 -> 0.2" in capsys.readouterr().out
    with pytest.raises(InputError, match="seed: 0 -> 1"):
        start(tmp_path, record={**RECORD, "seed": 1})
    record = {**RECORD, "seed": 1}
    assert value_of(start(tmp_path, record=record, allow_config_change=True)) == 1
    said = capsys.readouterr().out
    assert "config changed: seed: 0 -> 1" in said and "order would change" in said


@pytest.mark.parametrize("dry_run", [True, False])
def test_damaged_checkpoints_are_passed_over_and_set_aside(tmp_path, capsys, dry_run):
    save(tmp_path, 1, 2)
    damage(tmp_path, 10, "optimizer")
    found = start(tmp_path, dry_run=dry_run)
    assert (int(found.step), value_of(found)) == (5, 1)
    assert "falling back to step 5" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"5", "10" if dry_run else "10.damaged"}


def test_where_all_are_damaged_nothing_is_started_anew(tmp_path):
    save(tmp_path, 1, 2)
    damage(tmp_path, 5)
    damage(tmp_path, 10)
    with pytest.raises(InputError, match="resume_step = 10 cannot be resumed from"):
        start(tmp_path, resume_step=10)
    with pytest.raises(InputError, match=r"damaged \(steps \[10, 5\]\)"):
        start(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"5", "10"}


def test_a_fine_tune_takes_all_but_the_optimiser_and_the_exponent(tmp_path, capsys):
    save(tmp_path / "old", 1, 2, exponent=4.0)
    found = start(tmp_path / "new", init_from=str(tmp_path / "old"), init_step=5)
    expected = dataclasses.replace(make_state(1), opt_state=TX.init(found.params))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert "step 5, at epoch 0" in capsys.readouterr().out


def save_model(workdir, state, **more):
    store = CheckpointStore(workdir)
    model = checkpoint_model(state)
    params = {k: v for k, v in model["params"].items() if k != "margin"}
    meta = {"backbone": "tiny", "num_classes": 2}
    store.save(0, model={**model, "params": params, **more}, meta=meta)
    store.close()
    return str(workdir)


def test_a_zoos_weights_get_a_fresh_margin(tmp_path):
    zoo = save_model(tmp_path / "zoo", make_state(1))
    found = start(tmp_path / "new", init_from=zoo, fresh=make_state(-1.0))
    assert (value_of(found), float(found.params["margin"]["beta"])) == (1, -1)


def test_what_cannot_be_fine_tuned_is_explained(tmp_path):
    whitening = {"mean": np.zeros(4, np.float32)}
    whitened = save_model(tmp_path / "w", make_state(1), whitening=whitening)
    with pytest.raises(InputError, match="is whitened, which training is not made for"):
        start(tmp_path / "new", init_from=whitened)
    old = str(save(tmp_path / "old", 1, num_classes=3))
    with pytest.raises(InputError, match="3 classes, and the images have 2; give it"):
        start(tmp_path / "new", init_from=old)
    with pytest.raises(InputError, match=r"init_from: .* is a tiny, and backbone is"):
        start(tmp_path / "new", init_from=old, backbone="x")
    with pytest.raises(InputError, match=r"pretrained_backbone: .*\.backbone=tiny"):
        start(tmp_path / "new", pretrained_backbone=old, backbone="x")


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_trunk_comes_with_a_classifier_that_fits(tmp_path, capsys, num_classes):
    old = str(save(tmp_path / "old", 1, exponent=4.0))
    fresh = make_state(-1.0, num_classes=num_classes)
    found = start(tmp_path / "new", pretrained_backbone=old, fresh=fresh)
    assert value_of(found) == 1
    assert float(found.batch_stats["trunk"]["mean"][0]) == 1
    assert float(found.params["margin"]["beta"]) == -1
    assert (int(found.step), float(found.pooling_exponent)) == (0, 3.0)
    fits = num_classes == 2
    expected = 1 if fits else -1
    np.testing.assert_array_equal(found.params["classifier"]["bias"], expected)
    said = "trunk and classifier from" if fits else "has 2 classes and 3 are wanted"
    assert said in capsys.readouterr().out


def open_for(workdir, first_step):
    return open_checkpoints(
        workdir,
        first_step=first_step,
        keep_every_steps=5,
        meta={"backbone": "tiny"},
        stream=STREAM,
    )


def test_checkpoints_know_their_place_in_the_stream(tmp_path):
    checkpoints = open_for(tmp_path, 0)
    assert checkpoints.newest() == "none yet"
    for _ in range(2):  # the second finds it there already
        checkpoints.save(make_state(1, step=7), 7)
        assert checkpoints.newest() == str(tmp_path / "checkpoints" / "7")
    assert checkpoints.longest_save() > 0
    checkpoints.close()
    found = load_checkpoint(tmp_path)
    assert found.data == {"position": 28, "num_images": 9}
    assert (found.step, found.meta) == (7, {"backbone": "tiny"})


def test_a_run_that_goes_back_deletes_what_came_after(tmp_path, capsys):
    save(tmp_path, 1, 2)
    open_for(tmp_path, 5).close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert "checkpoint of step 10 deleted" in capsys.readouterr().out


def test_of_several_hosts_the_first_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert open_for(tmp_path, 0) is None
    assert list(tmp_path.iterdir()) == []
