"""The repository keeps the rules of its layout, and each rule finds what breaks it."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.layout import (
    LAYERS,
    PACKAGE,
    RULES,
    SIDEWAYS,
    File,
    check_configs,
    check_constants,
    check_idioms,
    check_layers,
    check_libraries,
    check_sizes,
    check_suppressions,
)

ROOT = Path(__file__).parent.parent


def source_files() -> list[Path]:
    """Every Python file of the repository's own folders."""
    folders = (PACKAGE, "configs", "tools", "measure", "tests")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    # The rule for golden weights is shared as it is, and not code of this package.
    return sorted(set(files) - {ROOT / "tests" / "goldens" / "weights.py"})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rules(rule):
    complaints = []
    for path in source_files():
        name = path.relative_to(ROOT).as_posix()
        file = File(name, path.read_text(encoding="utf-8"))
        complaints += [f"{name}: {complaint}" for complaint in rule(file)]
    assert complaints == []


def test_the_page_has_every_part_once_in_the_order_of_the_layers():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The layers\n")[2].partition("\n## ")[0]
    parts: dict[str, list[str]] = {}
    for layer, cell in re.findall(r"^\| (\w+) \| (`[^|]+) \|", table, re.MULTILINE):
        parts.setdefault(layer, []).extend(re.findall(r"`(\w+)(?:/|\.py)`", cell))
    told = [part for found in parts.values() for part in found]
    assert sorted(told) == sorted(LAYERS.keys() - {"__init__"})
    heights = [[LAYERS[part] for part in found] for found in parts.values()]
    assert len(heights) == 8
    for above, below in pairwise(heights):
        assert min(above) > max(below)


def test_every_import_within_a_layer_that_is_allowed_is_needed():
    files = [
        File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in source_files()
        if path.is_relative_to(ROOT / PACKAGE)
    ]
    used = {
        (file.part, name.split(".")[1])
        for file in files
        for name, _ in file.imports
        if name.startswith(f"{PACKAGE}.")
    }
    assert used >= SIDEWAYS


# Modules without logic of their own, or whose logic is tested where it is used.
TESTED_ELSEWHERE = {
    "buckets/gcs.py": "buckets/test_objects.py",
    "buckets/retry.py": "buckets/test_objects.py",
    "buckets/s3.py": "buckets/test_objects.py",
    "buckets/storage.py": "buckets/test_objects.py",
    "browse/app.py": "browse/test_api.py",
    "browse/duplicates.py": "browse/test_review.py",
    "browse/server.py": "tasks/test_browse.py",
    "browse/services.py": "browse/test_api.py",
    "convert/conversion.py": "convert/test_unwrap.py",
    "convert/heads/foreign.py": "convert/heads/test_cirtorch.py",
    "convert/heads/readers.py": "convert/heads/test_sscd.py",
    "convert/keymaps/keymap.py": "convert/test_keymaps.py",
    "convert/keymaps/nasnet.py": "convert/test_keymaps.py",
    "convert/keymaps/nasnet_family.py": "convert/test_keymaps.py",
    "convert/keymaps/pnasnet.py": "convert/test_keymaps.py",
    "convert/keymaps/resnet.py": "convert/test_keymaps.py",
    "convert/keymaps/senet.py": "convert/test_keymaps.py",
    "convert/pickle_machine.py": "convert/test_hostile_torch_files.py",
    "convert/torch_tensors.py": "convert/test_torch_file.py",
    "data/sources/source.py": "data/sources/test_open.py",
    "errors.py": "test_main.py",
    "tasks/near_duplicate_leaks.py": "tasks/test_near_duplicates.py",
    "models/cell_plans.py": "models/test_nasnet_cells.py",
    "models/variables.py": "test_headless.py",
}


def test_each_module_has_its_namesake_among_the_tests():
    missing = []
    for path in sorted((ROOT / PACKAGE).rglob("[a-z]*.py")):
        name = path.relative_to(ROOT / PACKAGE).as_posix()
        namesake = path.relative_to(ROOT / PACKAGE).with_name(f"test_{path.name}")
        tested = TESTED_ELSEWHERE.get(name, namesake.as_posix())
        if not (ROOT / "tests" / tested).is_file():
            missing.append(name)
    assert missing == []


def test_all_parts_are_looked_at():
    names = {path.relative_to(ROOT).as_posix() for path in source_files()}
    assert {
        "multigrain_jax/main.py",
        "multigrain_jax/ops/pooling.py",
        "multigrain_jax/convert/keymaps/resnet.py",
        "configs/base.py",
        "tools/convert_checkpoint.py",
        "tests/test_architecture.py",
    } <= names
    parts = {File(name, "").part for name in names if name.startswith(PACKAGE)}
    assert parts == set(LAYERS)


LONG = "def long():\n" + "    x = 1\n" * 60
DOCUMENTED = 'def f():\n    """' + "\n" * 70 + '    """\n' + "    x = 1\n" * 59
BUILDER = "def make():\n    def inner():\n" + "        x = 1\n" * 59
BAD = [
    (check_layers, "ops/a.py", "import multigrain_jax.models.layers", "ops imports"),
    (check_layers, "mesh.py", "from multigrain_jax.train import step", "mesh imports"),
    (check_layers, "mesh.py", "from multigrain_jax import train", "mesh imports"),
    (check_layers, "losses/a.py", "from multigrain_jax.models import b", "not below"),
    (check_layers, "models/a.py", "from multigrain_jax.data import b", "not below"),
    (check_layers, "data/a.py", "def f():\n    import multigrain_jax.losses", "below"),
    (check_layers, "evaluation/a.py", "import multigrain_jax.train", "not below"),
    (check_layers, "convert/a.py", "import multigrain_jax.train", "not below"),
    (check_layers, "train/a.py", "import multigrain_jax.evaluation", "not below"),
    (check_layers, "pages/a.py", "import multigrain_jax.tasks.embed", "not below"),
    (check_layers, "__init__.py", "import multigrain_jax.inference", "not below"),
    (check_layers, "models/a.py", "from . import layers", "relative import"),
    (check_layers, "novel/a.py", "import os", "no place in LAYERS"),
    (check_libraries, "train/a.py", "import orbax.checkpoint as ocp", "orbax is for"),
    (check_libraries, "train/a.py", "def f():\n    import torch", "torch is for"),
    (check_libraries, "convert/a.py", "from torch import nn", "in the function"),
    (check_libraries, "data/a.py", "from jax import numpy", "data imports jax"),
    (check_libraries, "data/a.py", "from multigrain_jax.ops import color", ".ops"),
    (check_libraries, "data/a.py", "from multigrain_jax import ops", ".ops"),
    (check_configs, "train/a.py", "from ml_collections import ConfigDict", "outside"),
    (check_configs, "train/a.py", "def run(config, workdir): 1", "run(config)"),
    (check_configs, "train/a.py", "def f(settings: Mapping[str, Any]): 1", "types"),
    (check_configs, "data/a.py", "def f(*, config: dict[str, int]): 1", "f(config)"),
    (check_configs, "pages/a.py", "config = f()\nx = config['data']", "in tasks/"),
    (check_configs, "train/a.py", "from configs import base", "imports configs"),
    (check_configs, "../tools/a.py", "import configs.base", "imports configs"),
    (check_configs, "../tools/a.py", "import tools.b", "imports tools"),
    (check_sizes, "ops/a.py", "\n" * 351, "351 lines"),
    (check_sizes, "ops/a.py", LONG, "long: 61 lines"),
    (check_sizes, "ops/a.py", BUILDER, "make: 61 lines"),
    (check_suppressions, "ops/a.py", "import a  # noqa", "without its reason"),
    (check_suppressions, "ops/a.py", "x = f()  # type: ignore[arg-type]", "reason"),
    (check_suppressions, "../tools/a.py", "x = 1  # noqa: E402, F401", "reason"),
    (check_idioms, "ops/a.py", "jax.pmap(f)", "pmap is outdated"),
    (check_idioms, "ops/a.py", "from jax.random import PRNGKey as k", "PRNGKey"),
    (check_idioms, "ops/a.py", "import typing\nx: typing.Optional[int]", "Optional"),
    (check_idioms, "ops/a.py", "x: Optional[int] = 1", "Optional is outdated"),
    (check_idioms, "ops/a.py", "from flax.core import FrozenDict", "FrozenDict"),
    (check_idioms, "ops/a.py", "from flax.training import x", "flax.training"),
    (check_idioms, "ops/a.py", "def f(**rest): 1", "f: name the arguments"),
    (check_constants, "train/a.py", "NORM_EPSILON = 1e-6", "NORM_EPSILON is stated in"),
    (check_constants, "ops/a.py", "GEM_EPSILON: float = 1", "ops/pooling.py: import"),
]
GOOD = [
    (check_layers, "pages/a.py", "import multigrain_jax.evaluation.embed"),
    (check_layers, "train/a.py", "from multigrain_jax.train import step"),
    (check_layers, "data/a.py", "from multigrain_jax.errors import InputError"),
    (check_layers, "main.py", "import multigrain_jax.tasks.train"),
    (check_layers, "__init__.py", "def f():\n    import multigrain_jax.inference"),
    (check_layers, "__init__.py", "if TYPE_CHECKING:\n    import multigrain_jax.main"),
    (check_libraries, "checkpoint.py", "import orbax.checkpoint as ocp"),
    (check_libraries, "convert/a.py", "def f():\n    import torch"),
    (check_libraries, "data/a.py", "import jaxtyping, grain"),
    (check_configs, "tasks/a.py", "import ml_collections\ndef run(config, workdir): 1"),
    (check_configs, "tasks/a.py", "def f(settings: dict): return settings['seed']"),
    (check_configs, "train/a.py", "def f(settings: Settings, record: dict): 1"),
    (check_suppressions, "ops/a.py", "import a  # noqa: F401 - offered to users"),
    (check_configs, "main.py", "from ml_collections import config_flags"),
    (check_configs, "../configs/a.py", "from configs import base"),
    (check_sizes, "ops/a.py", "\n" * 350),
    (check_sizes, "ops/a.py", DOCUMENTED),
    (check_sizes, "../configs/a.py", LONG),
    (check_idioms, "ops/a.py", "# pmap, Optional[X]\nx: int | None = 'PRNGKey'"),
    (check_idioms, "ops/a.py", "def _f(**rest): 1"),
    (check_constants, "ops/pooling.py", "NORM_EPSILON = GEM_EPSILON = 1e-6"),
    (check_constants, "train/a.py", "from a.pooling import GEM_EPSILON"),
]


def make_file(path: str, text: str) -> File:
    """A file of the package, or with `../` one beside it."""
    inside = not path.startswith("../")
    return File(f"{PACKAGE}/{path}" if inside else path.removeprefix("../"), text)


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), BAD)
def test_a_rule_finds_what_breaks_it(rule, path, text, complaint):
    complaints = list(rule(make_file(path, text)))
    assert len(complaints) == 1
    assert complaint in complaints[0]


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_a_rule_accepts_what_keeps_it(rule, path, text):
    assert list(rule(make_file(path, text))) == []
