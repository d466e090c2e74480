"""Small checkpoints for tests, and damage to their files."""

from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.checkpoint import CheckpointStore


def small_items(step: int) -> dict[str, Any]:
    """The arrays of a checkpoint: `model` and `optimizer`, others at each step."""
    rng = np.random.default_rng(step)
    model = {"params": {"kernel": rng.random((64, 64)), "bias": rng.random(7)}}
    return {"model": model, "optimizer": {"trace": rng.random((64, 64))}}


def save_small(workdir: Path, step: int = 5, **items: Any) -> Path:
    """Save `small_items`, or the items that are given; the step's folder."""
    store = CheckpointStore(workdir)
    defaults = {"data": {"position": 80}, "meta": {"backbone": "tiny"}}
    store.save(step, **(small_items(step) | defaults | items))
    store.close()
    return store.folder / str(step)


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)
