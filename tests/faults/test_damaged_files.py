"""Files that a user can break, each in many ways, before each task that meets them."""

import os
import shutil
import stat
from functools import partial

import pytest
from helpers.configs import small_eval_config
from helpers.damages import DAMAGES, what_is_wrong
from helpers.photos import write_plain_photos

from configs import embed, near_duplicates, search
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import search as run_search

PHOTOS = ("0.png", "1.png", "2.png")


def embed_again(base, workdir):
    config = small_eval_config(embed.get_config, base / "photos", base / "model")
    run_embed.run(config, workdir)


def search_in(base, workdir):
    config = search.get_config()
    config.database, config.queries = str(workdir), str(base / "photos" / "0.png")
    run_search.run(config, base / "found")


def find_near_duplicates(base, workdir):
    config = near_duplicates.get_config()
    config.database = str(workdir)
    run_near_duplicates.run(config, base / "alike")


TASKS = {
    "embed": embed_again,
    "search": search_in,
    "near_duplicates": find_near_duplicates,
}
# The workdirs of the readers, in place of `found`.
OWN = {"embed": "found", "search": "found", "near_duplicates": "alike"}
# Of the workdir of `embed`, of that of the reader, and of the checkpoint.
FILES = (
    "embedded/descriptors/index.csv",
    "embedded/descriptors/descriptors.json",
    "embedded/config.json",
    "embedded/results.json",
    "embedded/skipped.txt",
    "embedded/.lock",
    "found/config.json",
    "found/results.json",
    "found/skipped.txt",
    "found/.lock",
    "model/checkpoints/5/meta/metadata",
)


@pytest.fixture(scope="module")
def original(tiny_checkpoint, tmp_path_factory):
    """Three photos and a bad one with their descriptors, a search and its model."""
    base = tmp_path_factory.mktemp("original")
    write_plain_photos(base / "photos", PHOTOS)
    (base / "photos" / "bad.png").write_bytes(b"none")
    shutil.copytree(tiny_checkpoint, base / "model")
    embed_again(base, base / "embedded")
    search_in(base, base / "embedded")
    find_near_duplicates(base, base / "embedded")
    for reader in ("found", "alike"):
        (base / reader / "skipped.txt").write_text("a line\n")
    return base


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("file", FILES)
def test_a_broken_file_is_one_line_or_none(original, tmp_path, file, task, capsys):
    """Every damage in turn: the task does its work, or names the file in one line."""
    wrong = []
    for damage, break_it in DAMAGES.items():
        base = tmp_path / damage
        shutil.copytree(original, base, symlinks=True)
        path = base / file.replace("found", OWN[task])
        assert stat.S_ISREG(os.lstat(path).st_mode)
        break_it(path)
        # Paths in config.json lead to the original, whose model is whole.
        config = base / "embedded" / "config.json"
        if config.is_file() and config != path:
            text = config.read_text(encoding="utf-8")
            config.write_text(text.replace(str(original), str(base)))
        found = what_is_wrong(partial(TASKS[task], base, base / "embedded"), base)
        if found is not None:
            wrong.append((damage, found))
    assert wrong == []
