"""What may change in the config of a run that is resumed, key by key."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from multigrain_jax.data.bucket_paths import absolute_path
from multigrain_jax.errors import InputError

# A resumed run must see the same samples in the same order …
ORDER_KEYS = (
    "seed",
    "num_repeats",
    "epoch_len_factor",
    "batch_size",
    "gradient_accumulation_steps",
    "data.source",
    "data.backend",
    "data.split",
    "data.list_file",
    "data.num_images",
    "data.val_fraction",
    "data.instances",
    "data.photos_per_instance",
)
# … and fill the same arrays.
SHAPE_KEYS = ("num_classes", "train_size")
# Of these no array of a checkpoint is of use to another value.
ARRAY_KEYS = ("backbone", "optimizer")
# These were used up at the beginning: what came of them is in the checkpoint.
START_KEYS = (
    "init_from",
    "init_step",
    "init_raw",
    "pretrained_backbone",
    "pooling_exponent",
    "beta_init",
)
# These decide the updates that are yet to come.
UPDATE_KEYS = (
    "augmentation",
    "batch_norm_group_size",
    "beta_learning_rate_factor",
    "classification_weight",
    "compute_dtype",
    "crop_area_min",
    "crop_resize",
    "cutmix_alpha",
    "data.background",
    "data.decode",
    "data.decoding",
    "data.depth",
    "data.max_megapixels",
    "decay_norms",
    "deterministic",
    "ema_decay",
    "instance_loss",
    "koleo_weight",
    "label_smoothing",
    "learning_rate",
    "learning_rate_drop_epochs",
    "learning_rate_drop_factors",
    "learning_rate_schedule",
    "margin",
    "mixup_alpha",
    "momentum",
    "negative_sampling",
    "num_epochs",
    "random_erasing",
    "sampling_group_size",
    "scale_learning_rate",
    "temperature",
    "warmup_epochs",
    "weight_decay",
)
# These decide what is measured and written, and how fast, but not what is learned.
RECORD_KEYS = (
    "allow_config_change",
    "checkpoint_every_epochs",
    "data.exclude",
    "data.local_cache_dir",
    "data.local_cache_gb",
    "data.root",
    "data.val_split",
    "data_timeout_s",
    "distributed.coordinator",
    "distributed.num_processes",
    "distributed.process_index",
    "dry_run",
    "eval_every_epochs",
    "keep_every_epochs",
    "log_every_steps",
    "log_sample_ids",
    "max_skipped_fraction",
    "max_train_hours",
    "num_workers",
    "prefetch_batches",
    "profile_steps",
    "report_leaks",
    "report_split",
    "resume_step",
    "start_anew",
    "stop_at_step",
    "task",
    "test_mode",
    "test_size",
    "validate_first",
    "verify_cache",
)
# Where the same file may be written in several ways.
PATH_KEYS = ("data.list_file", "data.root", "init_from", "pretrained_backbone")
# What versions did that had no such key, and recorded none in their checkpoints.
BEFORE = {
    "cutmix_alpha": 0.0,
    "data.decode": "exact",
    "data.photos_per_instance": 2,
    "decay_norms": True,
    "ema_decay": None,
    "init_raw": False,
    "instance_loss": "margin",
    "koleo_weight": 0.0,
    "label_smoothing": 0.0,
    "mixup_alpha": 0.0,
    "optimizer": "sgd",
    "random_erasing": 0.0,
    "temperature": 0.05,
}
REMEDY = "use another --workdir, restore the values"


class Change(NamedTuple):
    """A key whose value is another than when the checkpoint was written."""

    key: str
    saved: Any
    current: Any

    def __str__(self) -> str:
        """What is said of it."""
        return f"{self.key}: {self.saved!r} -> {self.current!r}"


def config_differences(
    saved: Mapping[str, Any], current: Mapping[str, Any]
) -> list[Change]:
    """The keys whose values differ, by dotted names in alphabetical order."""
    old, new = _flatten(saved), _flatten(current)
    return [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if not _same(key, old.get(key), new.get(key))
    ]


def _same(key: str, old: Any, new: Any) -> bool:
    if key in PATH_KEYS and isinstance(old, str) and isinstance(new, str):
        old, new = absolute_path(old), absolute_path(new)
    return old == new


def check_resumed_config(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    allowed: bool,
    idle_keys: Collection[str] = (),
) -> list[Change]:
    """What changed since the checkpoint was written, and has or will have an effect.

    Args:
        saved: the config as the checkpoint records it.
        current: that of this run.
        allowed: whether any change is that can be made (`allow_config_change`).
        idle_keys: dotted keys that the current config does not read. Older versions
            let them be set all the same, and such a run goes on.

    Raises:
        InputError: a change of the data's order or of a shape that is not allowed, or
            of what a run that has begun cannot change any more, allowed or not.
    """
    saved = _with_absent_keys(saved, current)
    known = _flatten(saved)
    changes = [
        change
        for change in config_differences(saved, current)
        # An older version wrote the checkpoint, without keys that it did not have.
        if change.key not in idle_keys
        and (change.key in known or change.key not in RECORD_KEYS)
    ]
    used_up = [change for change in changes if change.key in START_KEYS]
    if used_up:
        raise InputError(
            "the workdir was started with another config, and these changes would have "
            f"no effect, since the checkpoint has what came of them:{_listed(used_up)}"
            f"\n{REMEDY}, or begin a new run with --config.init_from"
        )
    unfit = [change for change in changes if change.key in ARRAY_KEYS]
    if unfit:
        raise InputError(
            "the workdir was started with another config, and these changes want other "
            f"arrays than the checkpoint has:{_listed(unfit)}\n{REMEDY}"
        )
    refused = [change for change in changes if change.key in ORDER_KEYS + SHAPE_KEYS]
    if refused and not allowed:
        raise InputError(
            "the workdir was started with another config, and these changes alter the "
            f"order of the data or the shapes:{_listed(refused)}\n{REMEDY}, or "
            "continue all the same with --config.allow_config_change=True"
        )
    return changes


def split_by_effect(changes: Iterable[Change]) -> tuple[list[Change], list[Change]]:
    """Those with an effect where nothing is left to train, and the others."""
    changes = list(changes)
    effective = [change for change in changes if change.key in RECORD_KEYS]
    return effective, [change for change in changes if change not in effective]


def as_it_ran(current: Mapping[str, Any], idle: Iterable[Change]) -> dict[str, Any]:
    """The config of a run that trained to its end before these changes were made."""
    record = copy.deepcopy(dict(current))
    for change in idle:
        _put(record, change.key, change.saved)
    return record


def _with_absent_keys(
    saved: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, Any]:
    """A recorded config with what its version did without the keys that it lacks."""
    whole = copy.deepcopy(dict(saved))
    absent = _flatten(current).keys() - _flatten(saved).keys()
    for key in absent & BEFORE.keys():
        _put(whole, key, BEFORE[key])
    return whole


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *outer, name = key.split(".")
    for inner in outer:
        tree = tree.setdefault(inner, {})
    tree[name] = value


def _listed(changes: Sequence[Change]) -> str:
    return "".join(f"\n  {change}" for change in changes)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            # JSON has no tuples.
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def config_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON gives it back: lists in place of tuples."""
    return {
        key: config_record(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in values.items()
    }
