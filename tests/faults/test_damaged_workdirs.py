"""Files of workdirs that a user can break, before the tasks that have a model to read.

A finished training is asked to go on; an evaluation is made a second time.
"""

import os
import shutil
import stat
from functools import partial

import pytest
from helpers.configs import fault_config, small_eval_config
from helpers.damages import DAMAGES, what_is_wrong

from configs import eval_base
from multigrain_jax.tasks import eval_classification as run_eval
from multigrain_jax.tasks import train

# Checkpoints are broken in checkpoint/test_loading.py and faults/test_checkpoints.py.
FILES = (
    "metrics.jsonl",
    "config.json",
    "results.json",
    "skipped.txt",
    "notes.txt",
    ".lock",
)


def train_again(base, photos):
    config = fault_config(photos, num_epochs=1, epoch_len_factor=0.5)
    train.run(config, base / "trained")


def evaluate(base, photos):
    config = small_eval_config(
        eval_base.get_config,
        photos,
        base / "trained",
        data={"split": "val"},
        test_size=33,
    )
    run_eval.run(config, base / "evaluated")


TASKS = {
    "trained": train_again,
    "evaluated": evaluate,
}


@pytest.fixture(scope="module")
def original(photos, tmp_path_factory):
    """A run of one step and its evaluation, with lists that hold a line."""
    base = tmp_path_factory.mktemp("original")
    train_again(base, photos)
    evaluate(base, photos)
    for workdir in TASKS:
        for name in FILES:
            if not (base / workdir / name).exists():
                (base / workdir / name).write_text("{}\n")
    return base


@pytest.mark.slow
@pytest.mark.parametrize("workdir", TASKS)
@pytest.mark.parametrize("file", FILES)
def test_a_broken_file_of_a_workdir_is_one_line_or_none(
    original, photos, tmp_path, file, workdir
):
    """Every damage in turn: the task does its work, or names the file in one line."""
    wrong = []
    for damage, break_it in DAMAGES.items():
        base = tmp_path / damage
        shutil.copytree(original, base, symlinks=True)
        path = base / workdir / file
        assert stat.S_ISREG(os.lstat(path).st_mode)
        break_it(path)
        found = what_is_wrong(partial(TASKS[workdir], base, photos), base)
        if found is not None:
            wrong.append((damage, found))
    assert wrong == []
