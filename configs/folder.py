"""One's own images: a folder for each class, or photos without any labels.

One command from a folder to a trained model, its scores and report.html:

    python -m multigrain_jax.main --config configs/folder.py \
        --config.data.root=~/photos

Subfolders train/ and val/ are taken as they are. Where there is no val/, 15 % of each
class are held out, always the same images (docs/own_data.md). The classes' names are
kept in the checkpoint. The table at the end scores what was held out; the scores of few
photos are rough.

This starts from scratch with a small network, for a few thousand images. With fewer, or
for the best results, start from a trained one:

    python -m multigrain_jax.main --config configs/folder.py \
        --config.data.root=~/photos --config.backbone=resnet50 \
        --config.pretrained_backbone=weights/joint_3B_0.5 \
        --config.train_size=224 --config.test_size=224 --config.learning_rate=0.005

Without labels (λ = 0, the argument behind the file's name) the margin loss alone is
trained: photos are told apart, for copies and near duplicates.

    python -m multigrain_jax.main --config configs/folder.py:0 \
        --config.data.root=~/photos
"""

import ml_collections

from configs import base


def get_config(classification_weight: str = "0.5") -> ml_collections.ConfigDict:
    """The recipe, for the given λ."""
    config = base.get_config()
    config.data.source = "folder"
    config.data.val_fraction = 0.15
    config.report_split = "val"
    config.report_leaks = True
    config.backbone = "resnet18"
    config.num_repeats = 3
    config.classification_weight = float(classification_weight)
    config.pooling_exponent = 3.0
    config.train_size = 96
    config.test_size = 96
    config.batch_size = 48
    config.batch_norm_group_size = 48
    config.sampling_group_size = 48
    config.num_epochs = 32
    config.learning_rate = 0.02
    config.learning_rate_schedule = "cosine"
    config.warmup_epochs = 1.0
    config.weight_decay = 5e-4
    config.log_every_steps = 20
    config.eval_every_epochs = 4
    config.checkpoint_every_epochs = 4
    config.keep_every_epochs = 1000
    return config
