"""What the original's code relies on is put around modules of the tests' own."""

import importlib
import json
import os
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from measure.original_runner import (
    StandIns,
    Task,
    accuracy,
    counting_comparisons,
    limit_classes,
    replace_parts,
)

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]

# Stand-ins for a clone and for torchvision, which tell what they were given.
FILES = {
    "clone/multigrain/utils.py": "accuracy = make_plots = None\n",
    "clone/multigrain/modules.py": (
        "class MarginLoss:\n"
        "    def forward(self, x, y):\n"
        "        return ((x > 0) + (y > 0)).sum().item()\n"
    ),
    "clone/multigrain/nets.py": (
        "import no_such_networks.models\n"
        "from no_such_networks.models.cells import Cell\n"
        "class Own(Cell):\n"
        "    pass\n"
    ),
    "clone/scripts/beside.py": "here = True\n",
    "clone/scripts/train.py": (
        "import beside, collections, json, random, sys\n"
        "import numpy as np, torch\n"
        "from PIL import PILLOW_VERSION\n"
        "from torchvision.models import resnet18\n"
        "from multigrain import modules, utils\n"
        "pairs = modules.MarginLoss().forward(torch.tensor([1., 1, 0]),\n"
        "                                     torch.tensor([1., 0, 0]))\n"
        "logits = torch.tensor([[3., 1, 2], [1, 3, 2]])\n"
        "utils.make_plots({}, 'nowhere')\n"
        "draws = [random.random(), np.random.random(), float(torch.rand(1))]\n"
        "told = dict(arguments=sys.argv[1:], pairs=pairs, main=__name__,\n"
        "    top=utils.accuracy(logits, torch.tensor([2, 1]), topk=(1, 2)),\n"
        "    classes=resnet18(pretrained=None), draws=draws,\n"
        "    names=[np.int(2.5), issubclass(list, collections.Iterable)],\n"
        "    threads=torch.get_num_threads())\n"
        "json.dump(told, open('told.json', 'w'))\n"
    ),
    "tv/torchvision/__init__.py": "",
    "tv/torchvision/models.py": (
        "def resnet18(pretrained=False, num_classes=1000):\n    return num_classes\n"
    ),
}


@pytest.fixture
def clone(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_script_finds_what_it_relies_on(clone):
    task = Task(
        clone=str(clone / "clone"),
        torchvision=str(clone / "tv"),
        arguments=["--epochs", "3"],
        num_classes=7,
        seed=5,
        threads=1,
    )
    (clone / "task.json").write_text(json.dumps(task._asdict()))
    run = "import sys; from measure.original_runner import main; main(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", run, str(clone / "task.json")],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    told = json.loads((clone / "told.json").read_text())
    assert told["arguments"] == ["--epochs", "3"]
    assert (told["main"], told["classes"], told["threads"]) == ("__main__", 7, 1)
    assert told["pairs"] == 3
    assert told["top"] == [50, 100]
    assert told["names"] == [2, True]
    generator = torch.Generator().manual_seed(5)
    expected = [
        random.Random(5).random(),
        np.random.RandomState(5).random_sample(),
        float(torch.rand(1, generator=generator)),
    ]
    assert told["draws"] == expected


def test_a_package_that_is_not_there_is_stood_in_for(clone, monkeypatch):
    monkeypatch.syspath_prepend(str(clone / "clone" / "multigrain"))
    monkeypatch.setattr(
        sys, "meta_path", [*sys.meta_path, StandIns("no_such_networks")]
    )
    try:
        nets = importlib.import_module("nets")
        with pytest.raises(NotImplementedError, match=r"no_such.* choose a ResNet"):
            nets.Own()
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_other")
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "no_such_networks"]:
            del sys.modules[name]
        sys.modules.pop("nets", None)


def test_only_resnets_are_given_the_number_of_classes():
    def make(num_classes=1000, depth=0):
        return num_classes, depth

    models = types.ModuleType("models")
    vars(models).update(resnet18=make, resnet50=make, vgg=make, resnet_list=[1])
    limit_classes(models, 14)
    assert vars(models)["resnet18"](depth=3) == (14, 3)
    assert vars(models)["resnet50"]() == (14, 0)
    assert vars(models)["vgg"]() == (1000, 0)
    assert vars(models)["resnet_list"] == [1]


def test_comparisons_count_and_what_surrounds_them_stays():
    def loss(x, *, margin):
        positive = torch.clamp(x - margin, min=0.0)
        pairs = torch.sum((positive > 0) + (x > 0)).item()
        return torch.sum(positive) / max(pairs, 1), pairs

    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    today, once = loss(x, margin=1.0)
    value, twice = counting_comparisons(loss)(x, margin=1.0)
    assert (once, twice) == (2, 3)
    torch.testing.assert_close(value * 3, today * 2)
    value.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([0, 0, 1 / 3]))
    # Outside of it comparisons are what they are.
    assert (x > 0).dtype is torch.bool


def test_accuracy_is_counted_among_no_more_classes_than_there_are():
    output = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.1]])
    assert accuracy(output, torch.tensor([2, 0]), topk=(1, 2, 5)) == [50, 100, 100]


def test_parts_are_replaced_where_the_script_looks_for_them():
    utils = types.SimpleNamespace(accuracy=None, make_plots=None)

    class MarginLoss:
        def forward(self, x):
            return (x > 0).dtype

    replace_parts(utils, types.SimpleNamespace(MarginLoss=MarginLoss))
    assert utils.accuracy is accuracy
    assert utils.make_plots({}, "nowhere") is None
    assert MarginLoss().forward(torch.ones(1)) is torch.uint8
