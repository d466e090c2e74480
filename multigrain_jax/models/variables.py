"""A model's arrays, apart from its structure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax


class Variables(NamedTuple):
    """A model's arrays, apart from its structure; nested dictionaries, string keys.

    Attributes:
        params: what is trained: {"trunk": …, "classifier": …}, the latter only of a
            model with classes.
        batch_stats: running means and variances.
        pooling_exponent: scalar p.
        whitening: {"mean": [D + 1], "projection": [D + 1, K]}, or empty.
        head: of another network's descriptor head {"0": {"projection": …, …}, …}, by
            the number of the projection; or empty.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    pooling_exponent: jax.Array
    whitening: dict[str, Any]
    head: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """Rows of the classifier, 0 where there is none."""
        classifier = self.params.get("classifier")
        return 0 if classifier is None else classifier["bias"].shape[0]


def variables_of(model_item: dict) -> Variables:
    """The model's arrays in a checkpoint's `model` item, without the margin's.

    A checkpoint does not hold what is empty (no batch norm, whitening or head).
    """
    params = {k: v for k, v in model_item["params"].items() if k != "margin"}
    return Variables(
        params=params,
        batch_stats=model_item.get("batch_stats", {}),
        pooling_exponent=model_item["pooling_exponent"],
        whitening=model_item.get("whitening", {}),
        head=model_item.get("head", {}),
    )


def string_keys(tree: Any) -> Any:
    """Positions in lists as strings, so that all keys of a tree can be sorted."""
    if isinstance(tree, Mapping):
        return {str(key): string_keys(value) for key, value in tree.items()}
    return tree


def number_keys(tree: Any) -> Any:
    """The inverse of `string_keys`."""
    if isinstance(tree, Mapping):
        return {
            int(key) if key.isdigit() else key: number_keys(value)
            for key, value in tree.items()
        }
    return tree


def merge_dicts(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; where both have a leaf, the second's."""
    merged = dict(first)
    for key, value in second.items():
        both = key in merged and isinstance(value, Mapping)
        merged[key] = merge_dicts(merged[key], value) if both else value
    return merged
