"""Checkpoints on disk: the one part that knows Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>/` with the items `model`
(parameters, batch statistics, pooling exponent, whitening), `ema` (their running
average, shaped as `model`, where a run keeps one), `optimizer` (absent in converted
checkpoints), `data` (where the data stream stands) and `meta` (how to build
the model, the run's config, and the digest of every leaf). Orbax does not notice a
flipped bit in array data, hence the digests: they are verified at every load.
"""

from multigrain_jax.checkpoint.listing import Description, Leaf, describe_checkpoint
from multigrain_jax.checkpoint.loading import (
    CHECKPOINTS_FOLDER,
    Checkpoint,
    DamagedCheckpointError,
    checkpoint_steps,
    find_checkpoint,
    load_average,
    load_checkpoint,
    load_meta,
    load_optimizer,
    load_optimizer_arrays,
    set_aside,
)
from multigrain_jax.checkpoint.store import (
    CheckpointNotSavedError,
    CheckpointStore,
    apart_folder,
    require_no_checkpoints,
    save_derived,
)

__all__ = [
    "CHECKPOINTS_FOLDER",
    "Checkpoint",
    "CheckpointNotSavedError",
    "CheckpointStore",
    "DamagedCheckpointError",
    "Description",
    "Leaf",
    "apart_folder",
    "checkpoint_steps",
    "describe_checkpoint",
    "find_checkpoint",
    "load_average",
    "load_checkpoint",
    "load_meta",
    "load_optimizer",
    "load_optimizer_arrays",
    "require_no_checkpoints",
    "save_derived",
    "set_aside",
]
