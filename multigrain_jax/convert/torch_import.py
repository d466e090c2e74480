"""State dicts of PyTorch become this package's variables, and back.

The tables in `keymaps` say which module is which. Nothing is guessed and nothing is
dropped in silence: every source key is used or named as ignored with its reason, every
target leaf is filled, every shape is checked.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from multigrain_jax.convert.keymaps import KEYMAPS
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import Variables, create_model, split_model
from multigrain_jax.trees import flatten_nested, nest_flat, tree_to_nested

# torch leaf -> (collection, leaf here). "weight" depends on its dimensions: a
# convolution's or linear layer's kernel, or a batch norm's scale.
_LEAVES = {
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_WEIGHTS = {4: "kernel", 2: "kernel", 1: "scale"}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}  # OIHW -> HWIO, [out, in] -> [in, out]
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
# Whole keys that are not of a module.
_SCALARS = {
    "pool.p": "pooling_exponent",
    "whitening.pca.pca_m": "whitening.mean",
    "whitening.pca.pca_P": "whitening.projection",
}
_CLASSIFIER = "classifier"
_COUNTER = "num_batches_tracked"
COUNTER_REASON = "a batch counter that nothing reads"
ALIAS_REASON = "the classifier again, under a second name"


@dataclass(frozen=True)
class ImportReport:
    """How a state dict was used.

    Attributes:
        num_used: keys that went into the variables.
        ignored: reason -> how many keys were left out for it.
    """

    num_used: int
    ignored: dict[str, int]


class _Target(NamedTuple):
    """Where a torch key goes, or why it goes nowhere."""

    path: str | None
    reason: str | None = None


def import_state_dict(
    state_dict: Mapping[str, np.ndarray], *, backbone: str
) -> tuple[Variables, ImportReport]:
    """Turn a state dict into a model's variables.

    A zoo's state dict (no `pool.p`) gets p = 1, with which it was trained.

    Args:
        state_dict: arrays by torch key, of the original or of a model zoo.
        backbone: a key of `BACKBONES`.

    Raises:
        InputError: one message with every key that is missing or not expected and
            every wrong shape.
    """
    keymap = KEYMAPS[backbone]
    found: dict[str, np.ndarray] = {}
    sources: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    problems: list[str] = []
    for key, value in state_dict.items():
        target = _target(key, np.ndim(value), keymap, state_dict)
        if target.path is None:
            if target.reason is None:
                problems.append(f"not expected: {key}")
            else:
                ignored[target.reason] += 1
            continue
        if target.path in found:
            problems.append(f"{key} and {sources[target.path]} are the same leaf")
        array = np.asarray(value)
        # The whitening's projection is applied from the right in both.
        is_module = key not in _SCALARS
        found[target.path] = _transposed(array, _FROM_TORCH) if is_module else array
        sources[target.path] = key
    found.setdefault("pooling_exponent", np.array(1.0, np.float32))
    expected = _expected_leaves(found, backbone)
    problems += _shape_problems(found, expected, sources, keymap)
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise InputError(
            f"the state dict does not fit {backbone}; {len(problems)} problems:\n  "
            f"{listed}"
        )
    nested = nest_flat(
        {k: v.astype(expected[k].dtype, copy=False) for k, v in found.items()}
    )
    variables = Variables(**{"whitening": {}, **nested})
    return variables, ImportReport(len(sources), dict(ignored))


def export_state_dict(variables: Variables, *, backbone: str) -> dict[str, np.ndarray]:
    """The state dict that the original would have for these variables.

    Args:
        variables: the model's arrays.
        backbone: a key of `BACKBONES`.
    """
    keymap = KEYMAPS[backbone]
    scalars = {path: key for key, path in _SCALARS.items()}
    leaves = {path: leaf for leaf, path in _LEAVES.items()}
    exported: dict[str, np.ndarray] = {}
    for path, value in flatten_nested(tree_to_nested(variables)).items():
        if path in scalars:
            exported[scalars[path]] = value
            continue
        collection, _, rest = path.partition(".")
        module, _, leaf = rest.rpartition(".")
        torch_leaf = leaves.get((collection, leaf), "weight")
        torch_module = _torch_module(module, keymap)
        exported[f"{torch_module}.{torch_leaf}"] = _transposed(value, _TO_TORCH)
        if torch_leaf == "running_var":
            exported[f"{torch_module}.{_COUNTER}"] = np.zeros((), np.int64)
    for alias in getattr(keymap, "ALIASES", ()):
        for leaf in ("weight", "bias"):
            exported[f"{alias}.{leaf}"] = exported[f"{_CLASSIFIER}.{leaf}"]
    return exported


def _target(
    key: str, ndim: int, keymap: ModuleType, state_dict: Mapping[str, np.ndarray]
) -> _Target:
    if key in _SCALARS:
        return _Target(_SCALARS[key])
    module, _, leaf = key.rpartition(".")
    if leaf == _COUNTER:
        return _Target(None, COUNTER_REASON)
    if (
        module in getattr(keymap, "ALIASES", ())
        and f"{_CLASSIFIER}.{leaf}" in state_dict
    ):
        return _Target(None, ALIAS_REASON)
    here = _module_here(module, keymap)
    if leaf == "weight" and ndim in _WEIGHTS:
        collection, name = "params", _WEIGHTS[ndim]
    elif leaf in _LEAVES:
        collection, name = _LEAVES[leaf]
    else:
        return _Target(None)
    return _Target(None if here is None else f"{collection}.{here}.{name}")


def _module_here(module: str, keymap: ModuleType) -> str | None:
    bare = module.removeprefix(keymap.PREFIX)
    if module == _CLASSIFIER or bare == keymap.ZOO_CLASSIFIER:
        return _CLASSIFIER
    return _translate(bare, keymap.MODULES)


def _torch_module(module: str, keymap: ModuleType) -> str:
    if module == _CLASSIFIER:
        return _CLASSIFIER
    bare = _translate(module, [(here, torch) for torch, here in keymap.MODULES])
    if bare is None:
        raise InputError(f"{module}: no row of the key map leads to this module")
    return keymap.PREFIX + bare


def _translate(name: str, rows: Any) -> str | None:
    """The other side of the first row whose one side matches."""
    for pattern, template in rows:
        regex = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w+)", re.escape(pattern))
        match = re.fullmatch(regex, name)
        if match:
            return template.format(**match.groupdict())
    return None


def _transposed(value: np.ndarray, orders: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    order = orders.get(value.ndim)
    return value if order is None else np.ascontiguousarray(value.transpose(order))


def _expected_leaves(
    found: Mapping[str, np.ndarray], backbone: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every leaf, by dotted path."""
    bias = found.get("params.classifier.bias")

    def make() -> Variables:
        model = create_model(
            backbone,
            num_classes=1000 if bias is None else bias.shape[0],
            whitened="whitening.mean" in found or "whitening.projection" in found,
        )
        return split_model(model)[1]

    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(make))
    return {jax.tree_util.keystr(k, simple=True, separator="."): v for k, v in leaves}


def _shape_problems(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, jax.ShapeDtypeStruct],
    sources: Mapping[str, str],
    keymap: ModuleType,
) -> list[str]:
    problems = []
    for path in expected.keys() - found.keys():
        module, _, leaf = path.partition(".")[2].rpartition(".")
        torch = path if not module else _torch_module(module, keymap) + f" ({leaf})"
        problems.append(f"missing: {torch}")
    for path in found.keys() - expected.keys():
        problems.append(f"not expected: {sources[path]}")
    for path in expected.keys() & found.keys():
        have, want = found[path].shape, expected[path].shape
        if have != want:
            torch = {"shape": have, "want": want}
            order = _TO_TORCH.get(len(have))
            if order is not None and len(want) == len(have):
                torch = {
                    "shape": tuple(have[axis] for axis in order),
                    "want": tuple(want[axis] for axis in order),
                }
            problems.append(
                f"{sources.get(path, path)}: found {list(torch['shape'])}, expected "
                f"{list(torch['want'])}"
            )
    return problems
