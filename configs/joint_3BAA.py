"""The joint recipe with AutoAugment: joint_3BAA_λ of the paper.

λ is the argument behind the file's name, 0.5 by default. Expected for λ = 0.5:
ImageNet top-1 78.2 % at 224, 79.4 % at 500. Cost: as joint_3B, and AutoAugment's
operations on the host.

    python -m multigrain_jax.main --config configs/joint_3BAA.py:0.5 \
        --config.data.root=/data/imagenet
"""

import ml_collections

from configs import joint_3B


def get_config(classification_weight: str = "0.5") -> ml_collections.ConfigDict:
    """The recipe, for the given λ."""
    config = joint_3B.get_config(classification_weight)
    config.augmentation = "AA"
    return config
