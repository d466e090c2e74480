"""What measure/quality.py compares: settings, and changes of the quick start.

A recipe states its difference from `configs/quickstart.py` (λ = 0.5, p = 3); one whose
keys or values this version of the package does not know is passed over.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.errors import InputError

Changes = Mapping[str, Any]

FAITHFUL = "faithful"


class Setting(NamedTuple):
    """How large a comparison is.

    Attributes:
        side: photos are stored with a shorter side of so many pixels; None: as they
            are.
        steps_per_epoch: for however many photos there are.
        changes: keys of the recipe, for all variants.
    """

    side: int | None
    steps_per_epoch: int
    changes: Changes


SETTINGS: Mapping[str, Setting] = {
    # 616 steps; three minutes on two idle cores.
    "96px": Setting(
        side=96,
        steps_per_epoch=28,
        changes={
            "train_size": 48,
            "test_size": 56,
            "batch_size": 48,
            "batch_norm_group_size": 48,
            "sampling_group_size": 48,
            "num_epochs": 22,
        },
    ),
    "quickstart": Setting(side=None, steps_per_epoch=29, changes={}),
}

# No validation, no pages, one checkpoint: a run is trained and then scored.
QUIET: Changes = {
    "data.val_split": None,
    "report_split": None,
    "validate_first": False,
    "log_every_steps": 1_000_000,
    "eval_every_epochs": 1_000_000,
    "checkpoint_every_epochs": 1_000_000,
    "keep_every_epochs": 1_000_000,
}

# Each option of training alone, as its paper has it.
CLASSIFICATION: Mapping[str, Changes] = {
    "label_smoothing": {"label_smoothing": 0.1},
    "decay_norms": {"decay_norms": False},
    "ema": {"ema_decay": 0.99},
    "mixup": {"mixup_alpha": 0.2},
    "cutmix": {"cutmix_alpha": 1.0},
    "erasing": {"random_erasing": 0.25},
    "trivial": {"augmentation": "trivial"},
}
COPIES: Mapping[str, Changes] = {
    "koleo_0.1": {"koleo_weight": 0.1},
    "koleo_1": {"koleo_weight": 1.0},
    "infonce_0.05": {"instance_loss": "infonce", "temperature": 0.05},
    "infonce_0.1": {"instance_loss": "infonce", "temperature": 0.1},
    "infonce_0.2": {"instance_loss": "infonce", "temperature": 0.2},
    "copies": {"augmentation": "copies"},
}
SMOOTHED: Changes = {
    **CLASSIFICATION["label_smoothing"],
    **CLASSIFICATION["decay_norms"],
    **CLASSIFICATION["ema"],
}
# What helped alone on the validation folds, without what did not.
HELPED: Changes = {**CLASSIFICATION["label_smoothing"], **CLASSIFICATION["ema"]}
INFONCE_HELPED: Changes = {**HELPED, **COPIES["infonce_0.05"]}
ALL_FOR_COPIES: Changes = {
    **COPIES["infonce_0.1"],
    **COPIES["koleo_0.1"],
    **COPIES["copies"],
}

RECIPES: Mapping[str, Changes] = {
    FAITHFUL: {},
    "lambda_1": {"classification_weight": 1.0},
    "p_1": {"pooling_exponent": 1.0},
    "lambda_1_p_1": {"classification_weight": 1.0, "pooling_exponent": 1.0},
    **CLASSIFICATION,
    **COPIES,
    "modern_all": {
        **SMOOTHED,
        **CLASSIFICATION["mixup"],
        **CLASSIFICATION["cutmix"],
        **CLASSIFICATION["erasing"],
        **CLASSIFICATION["trivial"],
    },
    "modern_mild": {**SMOOTHED, **CLASSIFICATION["mixup"]},
    "copies_all": ALL_FOR_COPIES,
    "copies_mild": {**COPIES["koleo_0.1"], **COPIES["copies"]},
    "copies_modern": {**SMOOTHED, **ALL_FOR_COPIES},
    "smoothed_erasing": {**HELPED, **CLASSIFICATION["erasing"]},
    "smoothed_koleo": {**HELPED, "koleo_weight": 0.05},
    "infonce_smoothed": INFONCE_HELPED,
    "infonce_smoothed_0.75": {**INFONCE_HELPED, "classification_weight": 0.75},
    "infonce_all": {**INFONCE_HELPED, **COPIES["koleo_0.1"], **COPIES["copies"]},
}


def recipe_config(
    changes: Changes,
    setting: Setting,
    *,
    num_images: int,
    num_classes: int,
    seed: int,
    steps: int | None,
):
    """The configuration of one run, without its places; an `ml_collections` ConfigDict.

    Args:
        changes: the recipe's.
        setting: a value of `SETTINGS`.
        num_images: training photos, to which the length of an epoch is fitted.
        num_classes: of all photos.
        seed: of everything that is random.
        steps: a trial of so many steps in place of a run; None: a run.

    Raises:
        InputError: a key or a value that this version does not know.
    """
    from multigrain_jax.main import load_recipe
    from multigrain_jax.tasks.train_check import check_train_config

    recipe = Path(__file__).resolve().parent.parent / "configs" / "quickstart.py"
    config = load_recipe(str(recipe))
    for key, value in {**setting.changes, **QUIET, **changes}.items():
        *outer, name = key.split(".")
        part = config
        for inner in outer:
            part = part[inner]
        if name not in part:
            raise InputError(f"there is no key {key} in configs/quickstart.py")
        part[name] = value
    config.seed, config.num_classes = seed, num_classes
    batch_size, per_epoch = config.batch_size, setting.steps_per_epoch
    if steps is not None:
        config.num_epochs, config.warmup_epochs, per_epoch = 1, 0.0, steps
    wanted = int(num_images * config.epoch_len_factor)
    if math.ceil(wanted / batch_size) != per_epoch:
        # Rounded down to whole samples: not one batch more.
        config.epoch_len_factor = per_epoch * batch_size / num_images
    check_train_config(config.to_dict(), num_devices=1)
    return config
