"""Opens the model that a configuration names, and says which weights it took."""

from collections.abc import Mapping
from typing import Any

from multigrain_jax.checkpoint import Checkpoint
from multigrain_jax.opened_model import OpenedModel, open_model
from multigrain_jax.runtime import compute_dtype


def open_weights(
    settings: Mapping[str, Any], *, pooling_exponent: float | None
) -> OpenedModel:
    """The checkpoint of `init_from`, `init_step` and `init_raw`.

    Args:
        settings: the configuration as nested dictionaries.
        pooling_exponent: p of the GeM pooling; None is the checkpoint's.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another model.
    """
    opened = open_model(
        settings["init_from"],
        step=settings["init_step"],
        raw=settings["init_raw"],
        pooling_exponent=pooling_exponent,
        dtype=compute_dtype(settings["compute_dtype"]),
    )
    say_which_weights(opened.checkpoint, raw=settings["init_raw"])
    return opened


def say_which_weights(checkpoint: Checkpoint, *, raw: bool) -> None:
    """A line where a checkpoint has an average of its weights, or `raw` finds none."""
    if said := checkpoint.which_weights(raw=raw):
        print(f"of {checkpoint.path}: {said}", flush=True)
