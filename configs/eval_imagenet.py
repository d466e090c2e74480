"""Accuracy on ImageNet's validation images, at any size and pooling exponent.

The published top-1 of the released checkpoints (MultiGrain, tables 2 and 3; p is what
`--config.pooling_exponent` sets, "own" the checkpoint's):

    checkpoint                     size  mode    p     top-1
    joint_1B_1.0                   224   square  own   76.8
    joint_3B_1.0                   224   square  own   76.9
    joint_1B_0.5                   224   square  own   77.0
    joint_3B_0.5                   224   square  own   77.4
    joint_3BAA_0.5                 224   square  own   78.2
    joint_3B_0.5, p* fine-tuned    500   rect    4     78.6 (top-5 94.4)
    joint_3BAA_0.5, p* fine-tuned  500   rect    4     79.4
    nasnetamobile-finetune350      350   rect    1.7   75.1
    senet154-finetune400           400   rect    1.6   83.0
    senet154-finetune400           450   rect    1.6   83.1
    pnasnet5large-finetune500      500   rect    1.7   83.6
    torchvision resnet50           224   square  1     76.130
    torchvision resnet50           400   square  2     77.880
    torchvision resnet50           500   square  2     76.194

A row is one command, after the checkpoint was converted into weights/:

    python -m multigrain_jax.main --config configs/eval_imagenet.py \
        --config.data.root=/data/imagenet --config.init_from=weights/joint_3B_0.5
    python -m multigrain_jax.main --config configs/eval_imagenet.py \
        --config.data.root=/data/imagenet --config.init_from=weights/joint_3B_0.5 \
        --config.test_size=500 --config.test_mode=rect --config.pooling_exponent=4

Several exponents cost one pass: --config.pooling_exponent="(1, 2, 3)".
"""

import ml_collections

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = eval_base.get_config()
    config.task = "eval_classification"
    config.data.source = "imagenet"
    config.data.split = "val"
    return config
