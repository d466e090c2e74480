"""Trains in a bucket, slowly, until it is killed.

python bucket_driver.py PHOTOS URL EPOCHS
"""

import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from helpers.configs import fault_config

from multigrain_jax import bucket_lock, mirror
from multigrain_jax.tasks import train
from multigrain_jax.tasks.on_bucket import run_on_bucket

# Of a step, which would take milliseconds.
STEP_S = 0.15


def main(photos: str, url: str, epochs: int) -> None:
    """Train until somebody ends this process."""
    mirror.PASS_S = 0.05
    bucket_lock.HEARTBEAT_S = 0.2
    real = train.make_step

    def make_step(config, built):
        step = real(config, built)

        def slow(*arguments):
            time.sleep(STEP_S)
            return step(*arguments)

        return slow

    train.make_step = make_step
    config = fault_config(photos, log_sample_ids=True, num_epochs=epochs)
    run_on_bucket(train.run, config, url)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
