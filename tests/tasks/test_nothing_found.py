"""A task that has read, embedded or found nothing has not done what it was asked."""

import importlib

import pytest
from helpers.configs import small_eval_config
from helpers.photos import CLASS_NAMES

from configs import (
    embed,
    eval_base,
    eval_retrieval,
    finetune_p,
    near_duplicates,
    predict,
    search,
    sweep_p,
    whiten,
)
from multigrain_jax.errors import InputError
from multigrain_jax.main import TASKS


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory):
    """A folder for each class, and in them what is no photo."""
    root = tmp_path_factory.mktemp("unreadable")
    for name in CLASS_NAMES:
        (root / name).mkdir()
        for number in range(2):
            (root / name / f"{number}.png").write_bytes(b"no photo")
    return root


RECIPES = {
    "eval_classification": eval_base.get_config,
    "predict": predict.get_config,
    "eval_retrieval": lambda: eval_retrieval.get_config("folder"),
    "finetune_pooling": finetune_p.get_config,
    "sweep_pooling": sweep_p.get_config,
    "whiten": whiten.get_config,
    "embed": embed.get_config,
}


@pytest.mark.parametrize("task", RECIPES)
def test_images_that_cannot_be_read_are_no_result(
    task, unreadable, tiny_checkpoint, tmp_path
):
    config = small_eval_config(RECIPES[task], unreadable, tiny_checkpoint)
    if task == "finetune_pooling":
        config.data.val_split = None
    if task == "sweep_pooling":
        config.test_sizes, config.pooling_exponent = (48,), (3.0,)
    if "split" in config.data:
        config.data.split = None
    run = importlib.import_module(TASKS[task]).run
    with pytest.raises(InputError, match="none of the 6 images could be read"):
        run(config, tmp_path / "run")
    assert len((tmp_path / "run" / "skipped.txt").read_text().splitlines()) == 6
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("module", [search, near_duplicates])
def test_descriptors_of_no_photo_are_no_collection(
    module, unreadable, tiny_checkpoint, tmp_path
):
    made_by = small_eval_config(embed.get_config, unreadable, tiny_checkpoint)
    with pytest.raises(InputError, match="nothing was embedded"):
        importlib.import_module(TASKS["embed"]).run(made_by, tmp_path / "embed")
    config = module.get_config()
    config.database = str(tmp_path / "embed")
    if module is search:
        config.queries = str(unreadable)
    with pytest.raises(InputError, match="no descriptors in it; embed some images"):
        importlib.import_module(TASKS[config.task]).run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
