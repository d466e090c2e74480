"""One of two hosts of a run, with two devices.

python hosts_driver.py PHOTOS WORKDIR COORDINATOR INDEX EPOCHS STOP EMBED OUTPUT

Trains until step STOP (0: to the end). Then, if EMBED is not "-", embeds the validation
photos with that workdir's model into OUTPUT.
"""

import os
import sys
from pathlib import Path

photos, workdir, coordinator, index, epochs, stop, embed, output = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import jax
import numpy as np
from helpers.hosts import embed_validation, hosts_config

from multigrain_jax.buckets import is_bucket
from multigrain_jax.errors import StoppedEarly
from multigrain_jax.mesh import make_mesh
from multigrain_jax.tasks.on_bucket import run_on_bucket
from multigrain_jax.tasks.train import run

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
config = hosts_config(photos, num_epochs=int(epochs), stop_at_step=int(stop) or None)
config.distributed.coordinator = coordinator
config.distributed.num_processes = 2
config.distributed.process_index = int(index)
try:
    if is_bucket(workdir):
        run_on_bucket(run, config, workdir)
    else:
        run(config, Path(workdir))
except StoppedEarly as stopped:
    print(stopped)
if embed != "-":
    embedded = embed_validation(photos, embed, make_mesh())
    if jax.process_index() == 0:
        np.savez(output, descriptors=embedded.descriptors, labels=embedded.labels)
