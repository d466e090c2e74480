"""The pooling exponent p* for a larger test size (MultiGrain, section 3.4).

One pass over the first 50 training images of every class, whole, their longer side at
`test_size`. Only p is trained, and a step costs about as much as a forward pass. The
result is a checkpoint that carries p*. Published: joint_3B_0.5 at 500 goes from p = 3
to about p* = 4, and to 78.6 % top-1. With weights of a model zoo start at 3, whatever
they were trained with:

    python -m multigrain_jax.main --config configs/finetune_p.py \
        --config.data.root=/data/imagenet --config.init_from=weights/joint_3B_0.5
    python -m multigrain_jax.main --config configs/finetune_p.py \
        --config.data.root=/data/imagenet --config.init_from=weights/pnasnet5large \
        --config.init_pooling_exponent=3.0
"""

import ml_collections
from ml_collections import config_dict

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = eval_base.get_config()
    config.task = "finetune_pooling"
    del config.engine  # JAX computes what becomes part of a model
    config.init_pooling_exponent = config_dict.placeholder(float)  # None: checkpoint's
    config.learning_rate = 0.005  # at the start; · (1 - i/n)^0.9 at step i of n
    config.images_per_class = 50
    config.log_every_steps = 100
    config.data.source = "imagenet"
    config.data.decode = "exact"  # as the paper's, of a folder too
    config.data.split = "train"
    config.data.val_split = config_dict.placeholder(str)  # None: no validation
    config.data.val_split = "val"
    config.test_size = 500
    config.test_mode = "rect"
    config.batch_size = 4
    return config
