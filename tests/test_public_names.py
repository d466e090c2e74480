"""The names at the root: documented, found by completion, typed for a user's code."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import multigrain_jax

ROOT = Path(__file__).parents[1]
HEAVY = {
    *("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorstore", "numpy"),
    *("PIL", "matplotlib", "tensorboardX", "tensorflow", "tensorflow_datasets"),
    *("torch", "pandas", "scipy", "pyarrow"),
}
USER = """
import numpy as np
from PIL import Image

import multigrain_jax

model = multigrain_jax.load_model("workdirs/quickstart")
photo = model.preprocess(Image.open("photo.jpg"), 224, "rect")
output = model(np.stack([photo, model.preprocess("photo.jpg", mode="rect")]))
reveal_type(model.embed(["photo.jpg"]))
reveal_type(model.similarity("photo.jpg", Image.open("photo.jpg")))
reveal_type(multigrain_jax.find_duplicates("photos"))
index = multigrain_jax.DescriptorIndex([np.asarray(output.normalized_embedding)])
reveal_type(model)
reveal_type(output.logits)
reveal_type(index.search(np.asarray(output.normalized_embedding), k=3))
"""


@pytest.mark.parametrize("name", multigrain_jax.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert name in dir(multigrain_jax)
    value = getattr(multigrain_jax, name)
    # A table has no docstring of its own.
    assert inspect.getdoc(value) if callable(value) else len(value)
    assert f"`{name}`" in multigrain_jax.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        _ = multigrain_jax.load_modell


def modules_of(code: str) -> set[str]:
    """The libraries that a process has imported at the end of a piece of code."""
    end = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{code}\n{end}"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split("\n")[-2].split())


def command_line(words: str) -> str:
    module, *arguments = words.split()
    return (
        f"import runpy, sys; sys.argv = {['x', *arguments]}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code, ended.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import multigrain_jax",
        command_line("multigrain_jax.main --help"),
        command_line("multigrain_jax.main --config configs/embed.py --help"),
        command_line("multigrain_jax --help"),
        command_line("multigrain_jax embed --help"),
        command_line("multigrain_jax recipes embed"),
        command_line("multigrain_jax search one.jpg --dry-run"),
    ],
)
def test_who_asks_for_help_does_not_wait_for_libraries(code):
    # Each takes from a tenth of a second to several; those alone that read recipes
    # and flags are there.
    assert not modules_of(code) & HEAVY


RARE = {"matplotlib", "tensorboardX", "torch", "tensorflow", "pyarrow", "faiss"}


def test_tasks_import_what_they_draw_and_record_with_when_they_do():
    code = "import multigrain_jax.tasks.embed, multigrain_jax.tasks.search"
    assert not modules_of(code) & RARE


def test_a_first_descriptor_does_not_wait_for_what_reads_many(
    tiny_checkpoint, photo_folder
):
    photo = next(photo_folder.rglob("*.png"))
    code = (
        "from multigrain_jax import load_model\n"
        f"load_model({str(tiny_checkpoint)!r}).embed([{str(photo)!r}])"
    )
    assert not modules_of(code) & {*RARE, "grain"}


@pytest.mark.skipif(
    shutil.which("pyright", path=f"{Path(sys.executable).parent}:{os.defpath}") is None,
    reason="pyright is not installed: pip install -e '.[dev]'",
)
def test_a_users_code_is_typed(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    pyright = shutil.which("pyright", path=f"{Path(sys.executable).parent}:/usr/bin")
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "user.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    types = ('"LoadedModel"', '"Array | None"', '"tuple[ndarray', '"ndarray')
    for shown in (*types, '"float"', '"list[list[str]]"'):
        assert f"is {shown}" in done.stdout, done.stdout
