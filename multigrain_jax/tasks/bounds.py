"""Which numbers every key of every recipe may hold: one table, read before a run.

A number that is not in here is in no recipe (`tests/tasks/test_bounds.py` walks them).
NaN is never allowed, and infinity only where its bound says so.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Bound(NamedTuple):
    """The numbers that a key may hold.

    Attributes:
        words: what is expected, after "expected ".
        least: no number below it.
        most: no number above it.
        without_ends: neither of the two itself.
        or_none: None is allowed, and means what the recipe's comment says.
        many: a list of such numbers, or one.
        at_least_one: of a list that must not be empty.
        infinite: infinity is a number too, as a word as well ("inf").
        or_auto: "auto" is allowed, and means what the recipe's comment says.
        whole: no fractions.
    """

    words: str
    least: float = -math.inf
    most: float = math.inf
    without_ends: bool = False
    or_none: bool = False
    many: bool = False
    at_least_one: bool = False
    infinite: bool = False
    or_auto: bool = False
    whole: bool = False

    def wrong(self, value: Any) -> list[Any]:
        """The parts of a key's value that are not allowed, the value itself if none."""
        if value is None:
            return [] if self.or_none else [None]
        if self.or_auto and value == "auto":
            return []
        values = as_tuple(value) if self.many else (value,)
        if self.at_least_one and not values:
            return [value]
        return [each for each in values if not self._allows(each)]

    def _allows(self, value: Any) -> bool:
        if self.infinite and isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return False
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if math.isinf(value):
            return self.infinite and value > 0
        if self.whole and not isinstance(value, int):
            return False
        if self.without_ends:
            return self.least < value < self.most
        return self.least <= value <= self.most


def at_least(least: float) -> Bound:
    """Numbers from `least` on."""
    return Bound(f"at least {least:g}", least)


def optional(bound: Bound) -> Bound:
    """A bound, or None."""
    return bound._replace(words=f"{bound.words} or None", or_none=True)


def automatic(bound: Bound) -> Bound:
    """A bound, or "auto"."""
    return bound._replace(words=f'{bound.words}, or "auto"', or_auto=True)


def several(bound: Bound) -> Bound:
    """A list of numbers within a bound, or one of them."""
    return bound._replace(words=f"{bound.words}, or a list of such", many=True)


ABOVE_ZERO = Bound("more than 0", 0, without_ends=True)
COUNT = at_least(1)
COUNT_OR_ZERO = at_least(0)
SHARE = Bound("a number from 0 to 1", 0, 1)
# Smaller images vanish on their way through the networks.
SMALLEST_IMAGE = 32
SIZE = Bound(f"at least {SMALLEST_IMAGE} pixels", SMALLEST_IMAGE)
# Where the recipe's type, which allows "auto" or a list, does not see to it.
WHOLE_SIZE = SIZE._replace(whole=True)
# A wait is a number of seconds that the system's clocks can hold.
SECONDS = Bound("from 1 to 1e9 seconds", 1, 1e9)
# JAX takes 32 bits of a seed and would lose the others without a word.
SEED = Bound("a number from 0 to 2^32 - 1", 0, 2**32 - 1)
EXPONENT = ABOVE_ZERO
ANY_EXPONENT = Bound(
    "a number above 0, a list of such numbers, or None for the checkpoint's",
    0,
    without_ends=True,
    or_none=True,
    many=True,
    infinite=True,
)

BOUNDS: dict[str, Bound] = {
    "approximate.ef_search": COUNT,
    "approximate.num_candidates": COUNT,
    "approximate.num_probes": COUNT,
    "approximate.num_recall_queries": COUNT_OR_ZERO,
    "batch_norm_group_size": COUNT,
    "batch_size": COUNT,
    "beta_init": COUNT_OR_ZERO,
    "beta_learning_rate_factor": COUNT_OR_ZERO,
    "blurred_above": SHARE,
    "checkpoint_every_epochs": COUNT,
    "classes_agree": SHARE,
    "classification_weight": SHARE,
    "crop_area_min": SHARE,
    "cutmix_alpha": COUNT_OR_ZERO,
    "dark_below": SHARE,
    "data.local_cache_gb": optional(ABOVE_ZERO),
    # A gigapixel at most: one photo takes twelve times as many bytes.
    "data.max_megapixels": Bound(
        "above 0 and at most 1000", math.nextafter(0, 1), 1000
    ),
    "data.num_images": optional(COUNT),
    "data.photos_per_instance": at_least(2),
    "data.val_fraction": Bound("from 0 to below 1", 0, math.nextafter(1, 0)),
    "data_timeout_s": SECONDS,
    "decode_processes": optional(COUNT),
    "decode_timeout_s": SECONDS,
    "distributed.num_processes": optional(COUNT),
    "distributed.process_index": optional(COUNT_OR_ZERO),
    "ef_construction": COUNT,
    "eigenvalue_floor": COUNT_OR_ZERO,
    # A decay of 0 would be the last weights again; None: no average is kept.
    "ema_decay": optional(Bound("above 0 and below 1", 0, 1, without_ends=True)),
    "empty_above": SHARE,
    "epoch_len_factor": ABOVE_ZERO,
    "eval_every_epochs": COUNT,
    "gradient_accumulation_steps": COUNT,
    "images_per_class": COUNT,
    # Half of the bits differ by chance.
    "hash_distance": Bound("from 0 to 48 bits", 0, 48),
    "init_pooling_exponent": optional(EXPONENT),
    "init_step": optional(COUNT_OR_ZERO),
    "keep_every_epochs": COUNT,
    "koleo_weight": COUNT_OR_ZERO,
    "label_smoothing": Bound("from 0 to below 1", 0, math.nextafter(1, 0)),
    "learning_rate": ABOVE_ZERO,
    "learning_rate_drop_epochs": several(COUNT_OR_ZERO),
    "learning_rate_drop_factors": several(ABOVE_ZERO),
    "log_every_steps": COUNT,
    "lowest_threshold": Bound("a similarity from -1 to 1", -1, 1),
    "margin": COUNT_OR_ZERO,
    "max_skipped_fraction": SHARE,
    "max_train_hours": optional(ABOVE_ZERO),
    "milvus.rows_per_insert": COUNT,
    "mixup_alpha": COUNT_OR_ZERO,
    "momentum": Bound("[0, 1)", 0, math.nextafter(1, 0)),
    "num_classes": optional(COUNT),
    "num_code_bytes": optional(COUNT),
    "num_components": optional(COUNT),
    "num_epochs": COUNT,
    # A graph with one link would not hold together.
    "num_links": at_least(2),
    "num_lists": optional(COUNT),
    "num_neighbours": COUNT,
    "num_repeats": COUNT,
    "num_workers": COUNT_OR_ZERO,
    "outlier_deviations": ABOVE_ZERO,
    "pooling_exponent": ANY_EXPONENT,
    "port": Bound("from 0 to 65535", 0, 65535),
    "prefetch_batches": COUNT,
    "profile_steps": COUNT_OR_ZERO,
    "query_expansion.alpha": COUNT_OR_ZERO,
    "query_expansion.num_neighbours": COUNT_OR_ZERO,
    "queue_size": COUNT,
    "random_erasing": SHARE,
    "resume_step": optional(COUNT_OR_ZERO),
    "rows_per_commit": COUNT,
    "rows_per_part": COUNT,
    "rows_per_shard": COUNT,
    "sampling_group_size": COUNT,
    "score_normalization.num_neighbours": COUNT,
    "score_normalization.weight": COUNT_OR_ZERO,
    "seed": SEED,
    "stop_at_step": optional(COUNT),
    "temperature": ABOVE_ZERO,
    "test_size": several(WHOLE_SIZE)._replace(at_least_one=True),
    "test_sizes": several(WHOLE_SIZE)._replace(at_least_one=True),
    "threshold": Bound("a similarity from -1 to 1", -1, 1),
    "thumbnail_cache_mb": ABOVE_ZERO,
    "tiny_below": COUNT_OR_ZERO,
    "train_rows": COUNT,
    "train_size": SIZE,
    "warmup_epochs": COUNT_OR_ZERO,
    "weight_decay": COUNT_OR_ZERO,
}
# What a smaller copy of a benchmark has.
BOUND_BELOW = {"expected_counts": COUNT_OR_ZERO}
# (task, key) where a task allows other numbers than the table above.
OF_TASK: dict[tuple[str, str], Bound] = {
    # The exponent is a part of what is trained, which neither limit is.
    ("train", "data_timeout_s"): Bound("more than 0", 0, 1e9, without_ends=True),
    ("train", "pooling_exponent"): EXPONENT,
    ("train", "test_size"): SIZE,
    ("embed", "pooling_exponent"): automatic(ANY_EXPONENT),
    ("embed", "test_size"): automatic(BOUNDS["test_size"]),
    ("eval_classification", "pooling_exponent"): automatic(ANY_EXPONENT),
    ("eval_classification", "test_size"): automatic(WHOLE_SIZE),
    ("eval_retrieval", "pooling_exponent"): automatic(ANY_EXPONENT),
    ("eval_retrieval", "test_size"): automatic(BOUNDS["test_size"]),
    ("finetune_pooling", "test_size"): WHOLE_SIZE,
    ("whiten", "test_size"): WHOLE_SIZE,
    ("near_duplicates", "threshold"): automatic(BOUNDS["threshold"]),
    ("finetune_pooling", "learning_rate"): COUNT_OR_ZERO,
    ("predict", "test_size"): optional(SIZE),
}


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A list or tuple as a tuple, and anything else as a tuple of one."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def bound_of(task: str, key: str) -> Bound | None:
    """The bound of a dotted key in a task's recipe; None: it holds no number."""
    outer = key.partition(".")[0]
    return OF_TASK.get((task, key)) or BOUNDS.get(key) or BOUND_BELOW.get(outer)


def number_problems(settings: Mapping[str, Any]) -> list[str]:
    """A line for every number in a configuration that its key may not hold."""
    task = settings["task"]
    return [
        f"{key}: found {wrong!r}, expected {bound.words}"
        for key, value in leaves(settings)
        if (bound := bound_of(task, key)) is not None
        for wrong in bound.wrong(value)
    ]


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of nested dictionaries, with its value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
