"""The two commands of docs/large_collections.md run, and find what is there."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from helpers.approximate import photos, random_rows, write_folder

from multigrain_jax import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "large_collections.md"
TESTED = re.compile(r"<!-- tested -->\n```\n(.*?)```", re.DOTALL)


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    # Its threads wait for each other busily, which is slow on a loaded machine.
    faiss.omp_set_num_threads(1)
    rows = random_rows(200)
    workdirs = tmp_path / "workdirs"
    write_folder(workdirs / "embed" / "descriptors", photos(200), rows)
    names = [image._replace(path=f"/q{image.path}") for image in photos(10)]
    write_folder(workdirs / "embed_queries" / "descriptors", names, rows[:10])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    (block,) = TESTED.findall(PAGE.read_text(encoding="utf-8"))
    lines = block.replace("\\\n", " ").splitlines()
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        config = main.load_recipe(words[4])
        given = [word.removeprefix("--config.").split("=") for word in words[5:]]
        config.update_from_flattened_dict(dict(given))
        workdir = main.default_workdir(words[4]).absolute()
        importlib.import_module(main.TASKS[config.task]).run(config, workdir)
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["rows"][:, 0].tolist() == list(range(10))
    assert names["similarities"][:, 0] == pytest.approx(1, abs=1e-3)
    found = json.loads((workdirs / "search" / "results.json").read_text())
    assert (found["recall_at_10"], found["num_not_in_index"]) == (1, 0)
    assert "10 queries among 200 photos" in (
        workdirs / "search" / "report.html"
    ).read_text(encoding="utf-8")
