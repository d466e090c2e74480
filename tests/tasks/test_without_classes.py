"""Tasks that need classes say so of a model that has none, and write nothing."""

import numpy as np
import pytest
from helpers.state_dicts import tiny_zoo, without

from configs import base, embed, eval_base, finetune_p, sweep_p
from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import embed as embed_task
from multigrain_jax.tasks import (
    eval_classification,
    finetune_pooling,
    sweep_pooling,
    train,
)

NEEDS = "has no classifier .num_classes = 0., and this task needs one; train one"
TASKS = {
    "eval_classification": (eval_base, eval_classification.run, NEEDS),
    "finetune_pooling": (finetune_p, finetune_pooling.run, NEEDS),
    "sweep_pooling": (sweep_p, sweep_pooling.run, NEEDS),
    "train": (base, train.run, "has 0 classes, .* give it as pretrained_backbone"),
}


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """A converted file without a classifier."""
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path_factory.mktemp("headless")
    safetensors.save_file(without(tiny_zoo(), "fc"), folder / "file.safetensors")
    convert_checkpoint(folder / "file.safetensors", folder / "out")
    return folder / "out"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_needs_classes_says_so(name, headless, photo_folder, tmp_path):
    recipe, run, message = TASKS[name]
    config = recipe.get_config()
    config.init_from = str(headless)
    config.data.source = "folder"
    config.data.root = str(photo_folder)
    config.data.val_split = None
    if name == "train":
        config.backbone = "tiny"
        config.batch_size = config.batch_norm_group_size = 8
        config.sampling_group_size = 8
    with pytest.raises(InputError, match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_task_that_needs_none_runs(headless, photo_folder, tmp_path):
    config = embed.get_config()
    config.init_from = str(headless)
    config.data.root = str(photo_folder)
    config.data.split = "train"
    config.test_size = 40
    config.batch_size = 8
    embed_task.run(config, tmp_path)
    (shard,) = (tmp_path / "descriptors").rglob("*.npy")
    np.testing.assert_allclose(np.linalg.norm(np.load(shard), axis=1), 1, rtol=1e-5)
