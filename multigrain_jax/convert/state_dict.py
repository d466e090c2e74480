"""State dicts of PyTorch become this package's variables, and back.

The tables in `keymaps` say which module is which. Nothing is guessed and nothing is
dropped in silence: every source key is used or named as ignored with its reason, every
target leaf is filled, every shape is checked.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from multigrain_jax.convert.architecture import likely_architecture
from multigrain_jax.convert.keymaps import KEYMAPS, KeyMap
from multigrain_jax.convert.unwrap import shown
from multigrain_jax.errors import InputError, printable
from multigrain_jax.models.multigrain import (
    Variables,
    abstract_model,
    split_model,
    variables_of,
)
from multigrain_jax.trees import flatten_nested, nest_flat, tree_to_nested

# torch leaf -> (collection, leaf here). "weight" depends on its dimensions: a
# convolution's or linear layer's kernel, or a batch norm's scale.
_LEAVES = {
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_TORCH_LEAVES = {here: torch for torch, here in _LEAVES.items()}
_WEIGHTS = {4: "kernel", 2: "kernel", 1: "scale"}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}  # OIHW -> HWIO, [out, in] -> [in, out]
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
# Whole keys that are not of a module.
_SCALARS = {
    "pool.p": "pooling_exponent",
    "whitening.pca.pca_m": "whitening.mean",
    "whitening.pca.pca_P": "whitening.projection",
}
_TORCH_SCALARS = {here: torch for torch, here in _SCALARS.items()}
_CLASSIFIER = "classifier"
_COUNTER = "num_batches_tracked"
COUNTER_REASON = "a batch counter that nothing reads"
ALIAS_REASON = "the classifier again, under a second name"
HEAD_REASON = "a head of several layers, which is no classifier"
# So many kernels of other shapes are another network, not a damaged file.
_MANY_KERNELS = 8


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


def recognise_backbone(state_dict: Mapping[str, np.ndarray]) -> str:
    """The name of the backbone whose keys these are.

    Raises:
        InputError: no known backbone has such keys.
    """
    for name, keymap in KEYMAPS.items():
        if keymap.recognises(state_dict):
            return name
    first = ", ".join(shown(key) for key in sorted(state_dict)[:4])
    known = ", ".join(KEYMAPS)
    likely = likely_architecture(state_dict)
    if likely is not None:
        raise InputError(
            f"the backbone was not recognised: the file is that of {likely}; expected "
            f"one of {known}"
        )
    raise InputError(
        f"the backbone was not recognised from {len(state_dict)} keys ({first}, …): "
        f"expected the keys of one of {known}; --backbone NAME overrides"
    )


def import_state_dict(
    state_dict: Mapping[str, np.ndarray], *, backbone: str, prefix: str = ""
) -> tuple[Variables, ImportReport]:
    """Turn a state dict into a model's variables.

    A zoo's state dict (no `pool.p`) gets p = 1, with which it was trained. One without
    a classifier is that of a model without classes.

    Args:
        state_dict: arrays by torch key, of the original or of a model zoo.
        backbone: a key of `BACKBONES`.
        prefix: what the file has before its keys, for the messages.

    Raises:
        InputError: one message with every key that is missing or not expected and
            every wrong shape or dtype.
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
                problems.append(f"not expected: {prefix}{key}")
            else:
                ignored[target.reason] += 1
            continue
        if target.path in found:
            problems.append(
                f"{prefix}{key} and {sources[target.path]} are the same leaf"
            )
        array = np.asarray(value)
        # The whitening's projection is applied from the right in both.
        is_module = key not in _SCALARS
        found[target.path] = _transposed(array, _FROM_TORCH) if is_module else array
        sources[target.path] = f"{prefix}{key}"
    found.setdefault("pooling_exponent", np.array(1.0, np.float32))
    head = found.get("params.classifier.bias", found.get("params.classifier.kernel"))
    # One of the two may be missing: [classes], or [features, classes].
    num_classes = head.shape[-1] if head is not None and head.ndim else 0
    whitened = "whitening.mean" in found or "whitening.projection" in found
    expected = _expected_leaves(backbone, num_classes, whitened)
    _require_widths(backbone, found, expected, sources)
    missing = _missing_keys(expected.keys() - found.keys(), keymap, state_dict)
    problems += [f"missing: {prefix}{key}" for key in missing]
    problems += _shape_problems(found, expected, sources)
    if problems:
        listed = "\n  ".join(map(printable, sorted(problems)))
        raise InputError(
            f"the state dict does not fit {backbone}; mend the file, or name another "
            f"backbone (--backbone). What is wrong, {len(problems)} in all:\n  {listed}"
        )
    nested = nest_flat(
        {k: v.astype(expected[k].dtype, copy=False) for k, v in found.items()}
    )
    return variables_of(nested), ImportReport(len(sources), dict(ignored))


def export_state_dict(variables: Variables, *, backbone: str) -> dict[str, np.ndarray]:
    """The state dict that the original would have for these variables.

    Args:
        variables: the model's arrays.
        backbone: a key of `BACKBONES`.
    """
    keymap = KEYMAPS[backbone]
    exported: dict[str, np.ndarray] = {}
    for path, value in flatten_nested(tree_to_nested(variables)).items():
        key = _torch_key(path, keymap)
        if key in _SCALARS:
            exported[key] = value
            continue
        exported[key] = _transposed(value, _TO_TORCH)
        module, _, leaf = key.rpartition(".")
        if leaf == "running_var":
            exported[f"{module}.{_COUNTER}"] = np.zeros((), np.int64)
    leaves = ("weight", "bias") if _CLASSIFIER in variables.params else ()
    for alias in keymap.aliases:
        for leaf in leaves:
            exported[f"{alias}.{leaf}"] = exported[f"{_CLASSIFIER}.{leaf}"]
    return exported


def _target(
    key: str, ndim: int, keymap: KeyMap, state_dict: Mapping[str, np.ndarray]
) -> _Target:
    if key in _SCALARS:
        return _Target(_SCALARS[key])
    module, _, leaf = key.rpartition(".")
    if leaf == _COUNTER:
        return _Target(None, COUNTER_REASON)
    if module in keymap.aliases and f"{_CLASSIFIER}.{leaf}" in state_dict:
        return _Target(None, ALIAS_REASON)
    if _is_head_of_several_layers(module, keymap):
        return _Target(None, HEAD_REASON)
    here = _module_here(module, keymap)
    if leaf == "weight" and ndim in _WEIGHTS:
        collection, name = "params", _WEIGHTS[ndim]
    elif leaf in _LEAVES:
        collection, name = _LEAVES[leaf]
    else:
        return _Target(None)
    return _Target(None if here is None else f"{collection}.{here}.{name}")


def _is_head_of_several_layers(module: str, keymap: KeyMap) -> bool:
    top, dot, _ = module.removeprefix(keymap.prefix).partition(".")
    return dot != "" and top in (_CLASSIFIER, keymap.zoo_classifier)


def _module_here(module: str, keymap: KeyMap) -> str | None:
    bare = module.removeprefix(keymap.prefix)
    if module == _CLASSIFIER or bare == keymap.zoo_classifier:
        return _CLASSIFIER
    return _translate(bare, keymap.modules)


def _torch_key(path: str, keymap: KeyMap) -> str:
    """The key that the original has for a leaf of the variables."""
    if path in _TORCH_SCALARS:
        return _TORCH_SCALARS[path]
    collection, _, rest = path.partition(".")
    module, _, leaf = rest.rpartition(".")
    torch_leaf = _TORCH_LEAVES.get((collection, leaf), "weight")
    if module == _CLASSIFIER:
        return f"{_CLASSIFIER}.{torch_leaf}"
    bare = _translate(module, [(here, torch) for torch, here in keymap.modules])
    if bare is None:
        raise InputError(
            f"{module}: found among the variables, and no row of the key map leads to "
            "it; add one to convert/keymaps/, or choose the backbone that has it"
        )
    return f"{keymap.prefix}{bare}.{torch_leaf}"


def _translate(name: str, rows: Iterable[tuple[str, str]]) -> str | None:
    """The other side of the first row whose one side matches."""
    for pattern, template in rows:
        match = _compiled(pattern).fullmatch(name)
        if match:
            return template.format(**match.groupdict())
    return None


@cache  # more patterns than the cache of `re` holds
def _compiled(pattern: str) -> re.Pattern[str]:
    """The pattern with {…} for any word."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w+)", re.escape(pattern)))


def _transposed(value: np.ndarray, orders: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    order = orders.get(value.ndim)
    return value if order is None else np.ascontiguousarray(value.transpose(order))


def _expected_leaves(
    backbone: str, num_classes: int, whitened: bool
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every leaf, by dotted path."""
    model = abstract_model(backbone, num_classes=num_classes, whitened=whitened)
    leaves = jax.tree_util.tree_leaves_with_path(split_model(model)[1])
    return {jax.tree_util.keystr(k, simple=True, separator="."): v for k, v in leaves}


def _shape_problems(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, jax.ShapeDtypeStruct],
    sources: Mapping[str, str],
) -> list[str]:
    problems = []
    for path in found.keys() - expected.keys():
        problems.append(f"not expected: {sources[path]}")
    for path in expected.keys() & found.keys():
        name = sources.get(path, path)
        have, want = found[path], expected[path]
        is_float = have.dtype.kind == want.dtype.kind
        if not (is_float and np.can_cast(have.dtype, want.dtype)):
            problems.append(
                f"{name}: {have.dtype} does not fit into {want.dtype} without loss"
            )
        if have.shape != want.shape:
            problems.append(
                f"{name}: found {_torch_shape(path, have.shape)}, "
                f"expected {_torch_shape(path, want.shape)}"
            )
    exponent = found["pooling_exponent"]
    if exponent.shape == () and not exponent > 0:
        problems.append(f"{sources['pooling_exponent']}: {exponent}, expected above 0")
    return problems


def _require_widths(
    backbone: str,
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, jax.ShapeDtypeStruct],
    sources: Mapping[str, str],
) -> None:
    """Refuse a network with the backbone's keys and other widths, in one line."""
    kernels = [
        path
        for path in expected
        if path in found
        and len(expected[path].shape) == found[path].ndim == 4
        and expected[path].shape != found[path].shape
    ]
    if len(kernels) >= _MANY_KERNELS:
        first = kernels[0]
        raise InputError(
            f"the state dict does not fit {backbone}: it has its keys and other widths "
            f"in {len(kernels)} kernels, as in wide, grouped (ResNeXt) and pruned "
            f"networks; {sources[first]}: found "
            f"{_torch_shape(first, found[first].shape)}, expected "
            f"{_torch_shape(first, expected[first].shape)}"
        )


def _missing_keys(
    paths: Iterable[str], keymap: KeyMap, state_dict: Iterable[str]
) -> list[str]:
    """The keys that leaves would have in a file with these keys."""
    modules = {key.rpartition(".")[0] for key in state_dict}
    has_prefix = any(module.startswith(keymap.prefix) for module in modules)
    zoo = keymap.zoo_classifier if keymap.zoo_classifier in modules else None
    keys = []
    for path in paths:
        key = _torch_key(path, keymap)
        module, _, leaf = key.rpartition(".")
        if module == _CLASSIFIER:
            key = f"{zoo or _CLASSIFIER}.{leaf}"
        elif not has_prefix:
            key = key.removeprefix(keymap.prefix)
        keys.append(key)
    return keys


def _torch_shape(path: str, shape: tuple[int, ...]) -> list[int]:
    """The shape of a leaf with its axes in torch's order."""
    is_module = path not in _TORCH_SCALARS
    order = _TO_TORCH.get(len(shape)) if is_module else None
    return list(shape) if order is None else [shape[axis] for axis in order]
