"""The quick start's second step: p* for a larger test size.

One pass over the training photos, whole, their longer side at 80 pixels; the scores
before and after are those of the test photos. Cost: a minute of CPU time.

    python -m multigrain_jax.main --config configs/quickstart_p.py
"""

import ml_collections

from configs import finetune_p


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = finetune_p.get_config()
    config.init_from = "workdirs/quickstart"
    config.data.source = "quickstart"
    config.data.val_split = "test"
    config.test_size = 80
    # There are 160 steps, where ImageNet has 12 500.
    config.learning_rate = 0.1
    config.log_every_steps = 20
    return config
