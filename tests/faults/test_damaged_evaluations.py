"""Files that a user can break, before the tasks that take a model and make another one.

In a round every file of the workdir, and of the model, is broken in another way: what
an error names is mended, and the same command given again, until it does its work.
"""

import os
import shutil
import stat
from functools import partial
from pathlib import Path

import pytest
from helpers.configs import small_eval_config
from helpers.damages import DAMAGES, is_one_line
from helpers.photos import write_noise_photos

from configs import eval_retrieval, finetune_p, sweep_p, whiten
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import eval_retrieval as run_retrieval
from multigrain_jax.tasks import finetune_pooling as run_finetune_pooling
from multigrain_jax.tasks import sweep_pooling as run_sweep_pooling
from multigrain_jax.tasks import whiten as run_whiten

PARTS = {"data": {"split": None}, "test_size": 40}
TASKS = {
    "whiten": (run_whiten, whiten.get_config, PARTS),
    "finetune_pooling": (
        run_finetune_pooling,
        finetune_p.get_config,
        {**PARTS, "data": {"split": None, "val_split": None}},
    ),
    "sweep_pooling": (
        run_sweep_pooling,
        sweep_p.get_config,
        {"data": {"split": None}, "test_sizes": (40,), "pooling_exponent": (3.0,)},
    ),
    "eval_retrieval": (
        run_retrieval,
        partial(eval_retrieval.get_config, "folder"),
        {"test_size": 40},
    ),
}
# Of the workdir, as a run has left them that was cut off, or that is over.
FILES = (
    "config.json",
    "results.json",
    "skipped.txt",
    "notes.txt",
    "metrics.jsonl",
    "report.html",
    "per_query.csv",
    ".lock",
)
META = "model/checkpoints/5/meta/metadata"


def run(task, base):
    module, get_config, changes = TASKS[task]
    config = small_eval_config(get_config, base / "photos", base / "model")
    with config.ignore_type():
        config.update(changes)
    module.run(config, base / "out")


@pytest.fixture(scope="module", params=TASKS)
def original(request, tiny_checkpoint, tmp_path_factory):
    """A task and what it has left, but for a checkpoint, beside which none is made."""
    base = tmp_path_factory.mktemp(request.param)
    write_noise_photos(base / "photos", count=4)
    (base / "photos" / "cow" / "bad.png").write_bytes(b"none")
    shutil.copytree(tiny_checkpoint, base / "model")
    run(request.param, base)
    shutil.rmtree(base / "out" / "checkpoints", ignore_errors=True)
    for name in FILES:
        if not (base / "out" / name).exists():
            (base / "out" / name).write_text("{}\n")
    return request.param, base


@pytest.mark.slow
@pytest.mark.parametrize("first", range(len(DAMAGES)))
def test_a_broken_file_is_named_and_once_it_is_mended_the_task_works(
    original, tmp_path, first
):
    task, whole = original
    base = tmp_path / "base"
    shutil.copytree(whole, base)
    broken = {}
    damages = list(DAMAGES.items())
    files = [META, *(f"out/{name}" for name in FILES)]
    for number, name in enumerate(files):
        damage, break_it = damages[(first + number) % len(damages)]
        assert stat.S_ISREG(os.lstat(base / name).st_mode)
        break_it(base / name)
        broken[name] = damage
    while True:
        try:
            run(task, base)
            break
        except InputError as error:
            assert is_one_line(error, base), str(error)
            named = [name for name in broken if name_in(name, base, str(error))]
            assert named, f"{error} names none of {broken}"
            for name in named:
                mend(base / name, whole / name)
                del broken[name]
    assert (base / "out" / "results.json").read_text().startswith("{")


def name_in(name, base, said):
    """Whether an error names a file; of a checkpoint, its folder."""
    folder = str(base / name.removesuffix("/5/meta/metadata"))
    return folder in said or f"in its {Path(name).name}" in said


def mend(path, whole):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    shutil.copy(whole, path)
