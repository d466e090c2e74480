"""A training that goes on with any number of devices, and what its model embeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.configs import fault_config
from helpers.sources import open_photos
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.evaluation.embed import Embedded, embed_all, make_embed_step
from multigrain_jax.inference import open_model
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.tasks import train as run_module
from multigrain_jax.tasks import train_build


def use_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let trainings in this process see its first `count` devices alone."""
    monkeypatch.setattr(train_build, "make_mesh", lambda: make_mesh(count))
    monkeypatch.setattr(run_module.jax, "device_count", lambda: count)


def hosts_config(photos: str | Path, **changes: Any) -> ConfigDict:
    """A training in float64, of two microbatches a step, with validation."""
    config = fault_config(
        Path(photos),
        compute_dtype="float64",
        log_sample_ids=True,
        gradient_accumulation_steps=2,
        batch_size=8,
        sampling_group_size=8,
    )
    config.data.val_split = "val"
    config.update(changes)
    return config


def embed_validation(photos: str | Path, workdir: str | Path, mesh: Mesh) -> Embedded:
    """Descriptors of the validation photos by a workdir's model, in float64."""
    opened = open_model(workdir, dtype=np.dtype(np.float64))
    source = open_photos(photos, "val")
    reading = Reading(num_workers=0, prefetch=4, timeout_s=600.0)
    plan = plan_batches(
        source,
        test_size=33,
        test_mode="square",
        batch_size=4,
        smallest_side=1,
        timeout_s=reading.timeout_s,
    )
    return embed_all(
        make_embed_step(opened.graphdef, backbone=BACKBONES["tiny"], mesh=mesh),
        put_replicated(mesh, opened.variables),
        make_eval_batches(source, plan, reading=reading),
        mesh=mesh,
    )
