"""What decides the numbers of a run's next steps, beside its config and its data."""

from collections.abc import Mapping
from typing import Any

import jax

from multigrain_jax.errors import InputError

# Raised when the same seed and position give another crop, or other colours, than the
# version before; likewise the order of the samples.
AUGMENTATION_VERSION = 1
ORDER_VERSION = 1
# What checkpoints were made with that do not say it.
FIRST = {"augmentation": 1, "order": 1}
# JAX's settings that change random numbers, or what is computed from them.
JAX_SETTINGS = (
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_enable_x64",
    "jax_default_matmul_precision",
)


def current_versions() -> dict[str, Any]:
    """What a checkpoint records of this program and of its JAX."""
    return {
        "augmentation": AUGMENTATION_VERSION,
        "order": ORDER_VERSION,
        **{name: getattr(jax.config, name) for name in JAX_SETTINGS},
    }


def compare_versions(recorded: Mapping[str, Any] | None, *, allowed: bool) -> None:
    """Refuse to go on with other numbers than a run was started with, or say so.

    Args:
        recorded: what the checkpoint says; None where it is of before there was any.
        allowed: whether the run may go on all the same (`allow_config_change`).

    Raises:
        InputError: the samples, or JAX's random numbers, would be others.
    """
    current = current_versions()
    if recorded is None:
        words = ", ".join(f"{name} {value}" for name, value in FIRST.items())
        print(f"the checkpoint does not say its versions: taken as {words}")
        recorded = FIRST
    changes = [
        f"{name}: {recorded[name]!r} -> {current.get(name)!r}"
        for name in recorded
        if recorded[name] != current.get(name)
    ]
    if not changes:
        return
    listed = "".join(f"\n  {change}" for change in changes)
    text = f"what decides the next steps is another than when the run began:{listed}"
    if not allowed:
        raise InputError(
            f"{text}\nuse the version of this program, and JAX's settings, by which "
            "the run began, use another --workdir, or continue all the same with "
            "--config.allow_config_change=True"
        )
    print(text)
