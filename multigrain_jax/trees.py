"""Trees of arrays as nested dictionaries, checked and digested leaf by leaf."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from multigrain_jax.errors import InputError


def tree_to_nested(tree: Any) -> dict[str, Any]:
    """A tree of arrays as nested dictionaries of NumPy arrays, named by path.

    What is not of NumPy is copied: the arrays of a train state are donated to the next
    step while the save still runs.
    """
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = [_name(key) for key in path]
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = leaf if isinstance(leaf, np.ndarray) else np.array(leaf)
    return nested


def nested_to_tree(nested: Mapping[str, Any], *, like: Any, name: str) -> Any:
    """The inverse of `tree_to_nested`, checked against the structure of `like`.

    Args:
        nested: nested dictionaries of arrays.
        like: a tree with the expected paths, shapes and dtypes.
        name: what the arrays are called in the error.

    Raises:
        InputError: one message that lists every missing or unexpected leaf and every
            other shape or dtype.
    """
    found = flatten_nested(nested)
    expected = {
        ".".join(_name(key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    problems = [f"missing: {key}" for key in expected.keys() - found.keys()]
    problems += [f"not expected: {key}" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        have, want = found[key], expected[key]
        if have.shape != want.shape or have.dtype != want.dtype:
            problems.append(
                f"{key}: found {have.dtype}{list(have.shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise InputError(
            f"{name} does not fit what was to be filled from it; was it made with "
            f"another backbone, number of classes or optimiser?\n  {listed}"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [found[k] for k in expected])


def leaf_digests(nested: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every leaf (dtype, shape and bytes), by dotted path."""
    return {path: _leaf_digest(leaf) for path, leaf in flatten_nested(nested).items()}


def _leaf_digest(leaf: np.ndarray) -> str:
    digest = hashlib.sha256(f"{leaf.dtype.str}{list(leaf.shape)}".encode())
    # The bytes where they are, of whatever dtype, rather than a copy.
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def nest_flat(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten_nested`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def flatten_nested(
    nested: Mapping[str, Any], prefix: str = ""
) -> dict[str, np.ndarray]:
    """Nested dictionaries as one, by dotted path; `prefix` starts every path."""
    flat: dict[str, np.ndarray] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten_nested(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = np.asarray(value)
    return flat
