"""Runs the training script of a clone of the original on today's Python and PyTorch.

For measure/against_original.py, in a process of its own. The clone's code runs as it
is; around it is put what it relied on in 2019: torchvision 0.2.2 from a folder, names
that Python, NumPy and Pillow have dropped, sums of comparisons that count. What has no
part in training is left out: plots, and networks of packages that are not installed.
Only in two places something else runs than there: the accuracy that it prints, and the
number of classes, which it has no option for.
"""

import collections
import collections.abc
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import runpy
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from multigrain_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
# The clone takes networks from this package, and here none of them is asked for.
ABSENT = "pretrainedmodels"
SHOWN_LINES = 15  # of what a failed training printed


class Task(NamedTuple):
    """What is run, as plain values that go through JSON.

    Attributes:
        clone: the folder of the original's clone.
        torchvision: the folder that holds torchvision 0.2.2, and nothing else.
        arguments: of its training script.
        num_classes: of the classifier; the script itself has always 1000.
        seed: of every generator, which the script leaves to chance.
        threads: of PyTorch.
    """

    clone: str
    torchvision: str
    arguments: list[str]
    num_classes: int
    seed: int
    threads: int


def run_in_clone(code: str, task: Task, *, folder: Path, log_path: Path) -> None:
    """Run code in a process of its own, its working folder the given one.

    Args:
        code: Python, which finds the file of the task as its first argument.
        task: what is run.
        folder: for that file, and whatever the code writes.
        log_path: what is printed goes to its end.

    Raises:
        InputError: it ended with an error.
    """
    task_file = folder / "task.json"
    task_file.write_text(json.dumps(task._asdict()), encoding="utf-8")
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    with log_path.open("ab") as log:
        status = subprocess.run(
            [sys.executable, "-c", code, str(task_file)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    if status:
        last = log_path.read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        raise InputError(
            f"the original's training ended with exit code {status}, expected 0; it "
            f"printed to {log_path}, at last:\n  " + "\n  ".join(last)
        )


def read_task(task_file: str) -> Task:
    """The task of a file."""
    return Task(**json.loads(Path(task_file).read_text(encoding="utf-8")))


def main(task_file: str) -> None:
    """Train as the file of a `Task` says, in the working folder."""
    task = read_task(task_file)
    script = Path(task.clone) / "scripts" / "train.py"
    prepare(task)
    sys.argv = [str(script), *task.arguments]
    runpy.run_path(str(script), run_name="__main__")


def prepare(task: Task) -> None:
    """Make the clone's modules importable, and start every generator anew."""
    sys.path[:0] = [task.torchvision, str(Path(task.clone) / "scripts"), task.clone]
    restore_names()
    if importlib.util.find_spec(ABSENT) is None:
        sys.meta_path.append(StandIns(ABSENT))
    import torch

    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    np.random.seed(task.seed)
    random.seed(task.seed)
    limit_classes(importlib.import_module("torchvision.models"), task.num_classes)
    replace_parts(
        importlib.import_module("multigrain.utils"),
        importlib.import_module("multigrain.modules"),
    )


def restore_names() -> None:
    """Give Python, NumPy and Pillow the names back that they had in 2019."""
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    for module, name, value in (
        (np, "int", int),
        (np, "float", float),
        (PIL, "PILLOW_VERSION", PIL.__version__),
    ):
        if name not in vars(module):
            setattr(module, name, value)


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes any module of a package that is not installed, with any name in it."""

    def __init__(self, package: str):
        """Take the package's name."""
        self._package = package

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The package and all below it."""
        if fullname.split(".")[0] != self._package:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: types.ModuleType) -> None:
        """Give it every name: a class that can be built upon, and not be made."""

        def refuse(*_: Any, **__: Any) -> None:
            raise NotImplementedError(
                f"{module.__name__}: {self._package} is not installed, and this stands "
                "in its place; choose a ResNet, or install it"
            )

        def any_name(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__init__": refuse})

        module.__getattr__ = any_name


def limit_classes(models: types.ModuleType, num_classes: int) -> None:
    """Let every ResNet of torchvision have so many classes.

    Args:
        models: torchvision's, before others take their functions from it.
        num_classes: of the data.
    """
    for name, make in list(vars(models).items()):
        if name.startswith("resnet") and callable(make):
            limited = functools.partial(make, num_classes=num_classes)
            setattr(models, name, limited)


def replace_parts(utils: Any, modules: Any) -> None:
    """Put what runs today in the place of what does not, in the clone's modules.

    Args:
        utils: the module with `accuracy` and `make_plots`.
        modules: the one with the class `MarginLoss`.
    """
    utils.accuracy = accuracy
    utils.make_plots = lambda *_: None
    modules.MarginLoss.forward = counting_comparisons(modules.MarginLoss.forward)


def accuracy(output: Any, target: Any, topk: Sequence[int] = (1,)) -> list[float]:
    """Per cent of rows whose label is among the k largest, for each k.

    A tensor that is not contiguous has no `view` any more.

    Args:
        output: tensor [B, classes].
        target: int tensor [B].
        topk: each k; more than there are classes is all of them.
    """
    own = output.gather(1, target[:, None])
    ranks = (output > own).sum(dim=1)
    return [100.0 * float((ranks < k).double().mean()) for k in topk]


def counting_comparisons(function: Any) -> Any:
    """A function in which the sum of two comparisons counts both, as in PyTorch 1.0.

    A comparison had bytes as its result; today it has booleans, whose `+` is a logical
    or: pairs with both terms would count once, and the loss be divided by less.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Bytes(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype is torch.bool:
                return result.to(torch.uint8)
            return result

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with Bytes():
            return function(*args, **kwargs)

    return called
