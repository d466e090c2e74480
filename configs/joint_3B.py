"""The joint loss with GeM pooling: joint_3B_λ of the paper (3B: p = 3).

Three augmentations per image, as in all of the paper's joint models.

λ is the argument behind the file's name, 0.5 by default. Expected ImageNet top-1 at
224: 76.9 % for λ = 1 and 77.4 % for λ = 0.5; at 500 (test_mode "rect") with p = 4:
78.6 % for λ = 0.5. Cost: 600 600 updates of 512 crops, 307 million in all.

    python -m multigrain_jax.main --config configs/joint_3B.py:0.5 \
        --config.data.root=/data/imagenet
"""

import ml_collections

from configs import base


def get_config(classification_weight: str = "0.5") -> ml_collections.ConfigDict:
    """The recipe, for the given λ."""
    config = base.get_config()
    config.num_repeats = 3
    config.pooling_exponent = 3.0
    config.classification_weight = float(classification_weight)
    return config
