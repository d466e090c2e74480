"""A descriptor that finds copies, with classes in the same embedding.

joint_3B (R = 3, p = 3, as many updates), with the settings of SSCD (Pizzi et al., arXiv
2202.10261) where they apply: InfoNCE at temperature 0.05 in the margin loss's place, a
KoLeo term, views as copies are made (`augmentation = "copies"`), a cosine with warm-up.
Instances are compared in the whole batch: the more negatives, the better. λ, the weight
of the classes, is the argument behind the file's name, 0.5 by default; 0 trains without
labels, as SSCD is.

SSCD weighs KoLeo 30 to 1 against InfoNCE, in batches of 4 096; its authors call that
very strong, not stable everywhere, and advise 10 for new experiments: 10 it is here.
Other differences: ResNet-50's own 2 048 dimensions in place of 512 (a whitening of 512
components is closest), statistics in groups of 64, plain SGD, three views, and no
training on mixtures of images.

Measured here: this recipe needs ImageNet and has not been run. Of its options on the
quick start's photos (616 steps of ResNet-18, five seeds, validation folds;
docs/tried.md): InfoNCE at 0.05 +7.6 ± 1.7 points of µAP with distractors and -9.0 ± 1.4
of class mAP, views of copies 0.0 ± 0.9 and -7.8 ± 1.3 (+2.9 ± 2.2 of µAP of turned or
overlaid photos), KoLeo of weight 0.1 -0.6 ± 2.8 and -2.4 ± 0.5. KoLeo of weight 1 broke
the classes in three of five runs there: where classes matter,
`--config.koleo_weight=0.05` is the safer start. Best for copies was InfoNCE at 0.05
with smoothed labels and an average of the weights, +8.9 ± 1.8 and -10.9 ± 1.1; on the
test photos, read once, +5.1 ± 1.5 (1.20 times) and -2.4 ± 0.6.

Expected from the literature, not measured here: SSCD's ResNet-50 has µAP 61.4 on
DISC21, 72.4 with normalised scores, trained on DISC21's own photos at λ = 0;
MultiGrain's has 16.5 and 36.4. What the classes cost, or add, is not known.

Cost: as joint_3B (600 600 updates of 512 crops), and on the host 1.5 ms a crop for the
edits, four times AutoAugment's (docs/views.md): four cores for 2 500 crops a second.

    python -m multigrain_jax.main --config configs/copies.py:0.5 \
        --config.data.root=/data/imagenet
"""

import ml_collections

from configs import joint_3B


def get_config(classification_weight: str = "0.5") -> ml_collections.ConfigDict:
    """The recipe, for the given λ."""
    config = joint_3B.get_config(classification_weight)
    config.augmentation = "copies"
    config.instance_loss = "infonce"
    config.temperature = 0.05
    # InfoNCE has the weight 1 - λ.
    config.koleo_weight = 10.0 * (1 - config.classification_weight)
    config.sampling_group_size = config.batch_size
    config.learning_rate_schedule = "cosine"
    config.warmup_epochs = 5.0
    return config
