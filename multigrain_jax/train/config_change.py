"""What may change in the config of a run that is resumed."""

from collections.abc import Mapping
from typing import Any

from multigrain_jax.errors import InputError

# A resumed run must see the same samples in the same order …
ORDER_KEYS = (
    "seed",
    "num_repeats",
    "epoch_len_factor",
    "batch_size",
    "gradient_accumulation_steps",
    "data.source",
    "data.backend",
    "data.split",
    "data.list_file",
    "data.num_images",
)
# … and fill the same arrays.
SHAPE_KEYS = ("backbone", "num_classes", "train_size")


def config_differences(
    saved: Mapping[str, Any], current: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """The keys whose values differ, as (dotted key, saved value, current value)."""
    old, new = _flatten(saved), _flatten(current)
    return [
        (key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def check_resumed_config(
    saved: Mapping[str, Any], current: Mapping[str, Any], *, allowed: bool
) -> list[str]:
    """Lines that tell what changed since the checkpoint was written.

    Args:
        saved: the config as the checkpoint records it.
        current: that of this run.
        allowed: whether any change is (`allow_config_change`).

    Raises:
        InputError: a change of the data's order or of a shape that is not allowed.
    """
    differences = config_differences(saved, current)
    lines = [f"{key}: {old!r} -> {new!r}" for key, old, new in differences]
    refused = [
        line
        for line, (key, _, _) in zip(lines, differences, strict=True)
        if key in ORDER_KEYS + SHAPE_KEYS
    ]
    if refused and not allowed:
        raise InputError(
            "the workdir was started with another config, and these changes alter the "
            "order of the data or the shapes:\n  "
            + "\n  ".join(refused)
            + "\nuse another --workdir, restore the values, or continue all the same "
            "with --config.allow_config_change=True"
        )
    return lines


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            # JSON has no tuples.
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def config_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON gives it back: lists in place of tuples."""
    return {
        key: config_record(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in values.items()
    }
