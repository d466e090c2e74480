"""One host of a run on one or several.

python hosts_driver.py PHOTOS WORKDIR COORDINATOR HOSTS INDEX EPOCHS STOP EMBED OUTPUT

Trains until step STOP (0: to the end). Then, if EMBED is not "-", embeds the validation
photos with that workdir's model into OUTPUT.
"""

import os
import sys
from pathlib import Path

photos, workdir, coordinator, hosts, index, epochs, stop, embed, output = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
devices = 4 // int(hosts)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import jax
import numpy as np
from helpers.configs import fault_config
from helpers.sources import open_photos

from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.evaluation.embed import embed_all, make_embed_step
from multigrain_jax.inference import open_model
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.models.multigrain import BACKBONES
from multigrain_jax.tasks.train import run


def embed_photos() -> None:
    """Descriptors of the validation photos; process 0 writes them."""
    mesh = make_mesh()
    opened = open_model(embed, dtype=np.dtype(np.float64))
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
    embedded = embed_all(
        make_embed_step(opened.graphdef, backbone=BACKBONES["tiny"], mesh=mesh),
        put_replicated(mesh, opened.variables),
        make_eval_batches(source, plan, reading=reading),
        mesh=mesh,
    )
    if jax.process_index() == 0:
        np.savez(output, descriptors=embedded.descriptors, labels=embedded.labels)


jax.config.update("jax_enable_x64", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
config = fault_config(
    Path(photos),
    compute_dtype="float64",
    log_sample_ids=True,
    gradient_accumulation_steps=2,
    batch_size=8,
    sampling_group_size=8,
    num_epochs=int(epochs),
    stop_at_step=int(stop) or None,
)
config.data.val_split = "val"
if int(hosts) > 1:
    config.distributed.coordinator = coordinator
    config.distributed.num_processes = int(hosts)
    config.distributed.process_index = int(index)
try:
    run(config, Path(workdir))
except StoppedEarly as stopped:
    print(stopped)
if embed != "-":
    embed_photos()
