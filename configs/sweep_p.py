"""p* by cross-validation: accuracy over a grid of pooling exponents and test sizes.

The trunk runs once per image and size, whatever the number of exponents. As the paper
does it, on images that are kept out of training (here: ImageNet's validation images;
`--config.data.split` and `--config.data.list_file` choose others):

    python -m multigrain_jax.main --config configs/sweep_p.py \
        --config.data.root=/data/imagenet --config.init_from=weights/joint_3B_0.5
"""

import ml_collections

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = eval_base.get_config()
    config.task = "sweep_pooling"
    config.data.source = "imagenet"
    config.data.decode = "exact"  # as the paper's, of a folder too
    config.data.split = "val"
    config.pooling_exponent = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
    del config.test_size
    config.test_sizes = (224, 320, 400, 500)
    config.test_mode = "rect"
    return config
