"""Where a run begins, with states of a few numbers in place of a network's."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.beginnings import (
    DATA,
    STREAM,
    TX,
    average_of,
    make_state,
    save,
    start,
    value_of,
)

from multigrain_jax.checkpoint import CheckpointStore, load_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.train.start import open_checkpoints
from multigrain_jax.train.state import checkpoint_model
from multigrain_jax.train.versions import current_versions


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
        start(tmp_path, step=5)


def test_a_fine_tune_takes_all_but_the_optimiser_and_the_exponent(tmp_path, capsys):
    save(tmp_path / "old", 1, 2, exponent=4.0)
    found = start(tmp_path / "new", init_from=str(tmp_path / "old"), init_step=5)
    expected = dataclasses.replace(make_state(1), opt_state=TX.init(found.params))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    said = "step 5, at epoch 0, with its β of 1 in beta_init's place\n"
    assert said in capsys.readouterr().out


def save_model(workdir, state, **more):
    store = CheckpointStore(workdir)
    model = checkpoint_model(state)
    params = {k: v for k, v in model["params"].items() if k != "margin"}
    meta = {"backbone": "tiny", "num_classes": 2}
    store.save(0, model={**model, "params": params, **more}, meta=meta)
    store.close()
    return str(workdir)


def test_a_zoos_weights_get_a_fresh_margin(tmp_path, capsys):
    zoo = save_model(tmp_path / "zoo", make_state(1))
    found = start(tmp_path / "new", init_from=zoo, fresh=make_state(-1.0))
    assert (value_of(found), float(found.params["margin"]["beta"])) == (1, -1)
    assert "step 0, at epoch 0\n" in capsys.readouterr().out


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


@pytest.mark.parametrize("key", ["init_from", "pretrained_backbone"])
def test_a_beginning_takes_the_average_unless_the_last_weights_are_asked_for(
    tmp_path, capsys, key
):
    old = str(save(tmp_path / "old", 1, average=2.0))
    found = start(tmp_path / "new", **{key: old})
    assert value_of(found) == 2 and found.ema is None
    assert "its running average (ema" in capsys.readouterr().out
    # The average of the new run begins where its weights do.
    averaged = make_state(-1.0, average=-1.0)
    found = start(tmp_path / "new", fresh=averaged, init_raw=True, **{key: old})
    assert value_of(found) == average_of(found) == 1
    assert "its last weights (init_raw" in capsys.readouterr().out


def open_for(workdir, first_step):
    return open_checkpoints(
        workdir,
        first_step=first_step,
        keep_every_steps=5,
        meta={"backbone": "tiny"},
        stream=STREAM,
        digest=DATA.digest,
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
    assert found.data == {
        "position": 28,
        "num_images": 9,
        "digest": DATA.digest,
        "versions": current_versions(),
    }
    assert (found.step, found.meta) == (7, {"backbone": "tiny"})
    assert "ema" not in found.digests


def test_checkpoints_hold_the_average_of_a_state_that_has_one(tmp_path):
    checkpoints = open_for(tmp_path, 0)
    checkpoints.save(make_state(1, step=7, average=2.0), 7)
    checkpoints.close()
    last, average = (load_checkpoint(tmp_path, raw=raw) for raw in (True, False))
    assert last.digests["model"].keys() == last.digests["ema"].keys()
    assert float(last.model["params"]["margin"]["beta"]) == 1
    assert float(average.model["params"]["margin"]["beta"]) == 2
    assert float(average.model["pooling_exponent"]) == 3


def test_a_run_that_goes_back_deletes_what_came_after(tmp_path, capsys):
    save(tmp_path, 1, 2)
    open_for(tmp_path, 5).close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert "checkpoint of step 10 deleted" in capsys.readouterr().out


def test_of_several_hosts_the_first_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert open_for(tmp_path, 0) is None
    assert list(tmp_path.iterdir()) == []
