import json
from functools import partial

import pytest
from helpers.configs import small_eval_config

from configs import eval_base, sweep_p
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import eval_classification as run_classification
from multigrain_jax.tasks import sweep_pooling as run_sweep_pooling
from multigrain_jax.tasks.sweep_pooling import best_exponent

make_config = partial(
    small_eval_config,
    sweep_p.get_config,
    data={"split": "train"},
    test_sizes=(40, 64),
    pooling_exponent=(1.0, 3.0),
)


def test_the_grid_is_the_evaluation_of_each_pair(
    photo_folder, tiny_checkpoint, tmp_path, capsys
):
    config = make_config(photo_folder, tiny_checkpoint)
    results = run_sweep_pooling.run(config, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    table = capsys.readouterr().out
    assert "40 px" in table and "64 px" in table
    assert (tmp_path / "plots" / "sweep_pooling.png").exists()
    for size in (40, 64):
        for exponent in (1.0, 3.0):
            single = eval_base.get_config()
            single.init_from, single.batch_size = str(tiny_checkpoint), 8
            single.data.root, single.data.split = str(photo_folder), "train"
            single.test_size, single.test_mode = size, "rect"
            single.pooling_exponent = exponent
            alone = run_classification.run(single, tmp_path / f"{size}_{exponent}")
            for name in ("top1", "top5", "cross_entropy"):
                found = results[f"{size}/p{exponent:g}/{name}"]
                assert found == pytest.approx(alone[f"train/{name}"], rel=2e-5)
        assert results[f"{size}/best_pooling_exponent"] in (1.0, 3.0)


def test_the_best_exponent_is_that_of_the_best_accuracy():
    row = {
        1.0: {"top1": 0.5, "cross_entropy": 1.0},
        2.0: {"top1": 0.7, "cross_entropy": 1.2},
        3.0: {"top1": 0.7, "cross_entropy": 1.1},
    }
    assert best_exponent(row) == 3.0


def test_a_grid_is_needed(photo_folder, tiny_checkpoint, tmp_path):
    config = make_config(photo_folder, tiny_checkpoint)
    config.pooling_exponent = None
    with pytest.raises(InputError, match="expected the grid"):
        run_sweep_pooling.run(config, tmp_path)
