"""The joint loss with plain mean pooling: joint_1B_λ of the paper (1B: p = 1).

λ is the argument behind the file's name, 0.5 by default. Expected ImageNet top-1 at
224: 76.8 % for λ = 1 and 77.0 % for λ = 0.5. Cost: as joint_3B.

    python -m multigrain_jax.main --config configs/joint_1B.py:0.5 \
        --config.data.root=/data/imagenet
"""

import ml_collections

from configs import joint_3B


def get_config(classification_weight: str = "0.5") -> ml_collections.ConfigDict:
    """The recipe, for the given λ."""
    config = joint_3B.get_config(classification_weight)
    config.pooling_exponent = 1.0
    return config
