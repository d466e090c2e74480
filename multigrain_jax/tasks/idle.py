"""Keys that others leave without effect: refused where they were changed all the same.

Who sets such a key has forgotten another, and would be told nothing by the numbers.
"""

from collections.abc import Mapping
from typing import Any

from multigrain_jax.losses.margin import BETA_INIT, MARGIN
from multigrain_jax.tasks.bounds import leaves

# What every recipe holds of these keys where nobody chose otherwise.
DEFAULTS: Mapping[str, Any] = {
    "approximate.ef_search": 256,
    "approximate.num_candidates": 200,
    "approximate.num_probes": 32,
    "approximate.num_recall_queries": 32,
    "beta_init": BETA_INIT,
    "beta_learning_rate_factor": 1.0,
    "data.local_cache_gb": None,
    "data.photos_per_instance": 2,
    "init_raw": False,
    "init_step": None,
    "label_smoothing": 0.0,
    "margin": MARGIN,
    "query_expansion.alpha": 3.0,
    # As the Image Similarity Challenge has it.
    "score_normalization.num_neighbours": 10,
    "score_normalization.reduction": "nth",
    "score_normalization.weight": 2.0,
    "temperature": 0.05,
    "verify_cache": False,
}
# Of configs/base.py.
DROPS = {
    "learning_rate_drop_epochs": (30, 60, 90),
    "learning_rate_drop_factors": (0.1, 0.1, 0.1),
}


def idle_problems(config: Mapping[str, Any], idle: Mapping[str, str]) -> list[str]:
    """A line for every idle key whose value is not its default.

    Args:
        config: the configuration as nested dictionaries.
        idle: of each dotted key that is not read why not, and what would change that.
    """
    values = dict(leaves(config))
    return [
        f"{key}: found {values[key]!r} {why}, or leave {key} at {DEFAULTS[key]!r}"
        for key, why in idle.items()
        if values[key] != DEFAULTS[key]
    ]


def idle_of_weights(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys that choose weights where no checkpoint is named, of any task."""
    if config["init_from"]:
        return {}
    why = "without init_from, of which it chooses the {}; give --config.init_from=DIR"
    idle = {"init_step": why.format("step")}
    if not config.get("pretrained_backbone"):
        idle["init_raw"] = why.format("weights")
    return idle


def idle_of_search(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a search that its other keys leave without effect."""
    idle = idle_of_weights(config) | idle_of_expansion(config)
    if not config["index"]:
        why = (
            "without index, as every descriptor is looked at; give --config.index=DIR, "
            "the workdir of `index`"
        )
        of_index = (key for key in DEFAULTS if key.startswith("approximate."))
        idle |= dict.fromkeys(of_index, why)
    return idle


def idle_of_expansion(config: Mapping[str, Any]) -> dict[str, str]:
    """How queries are expanded, where they are not."""
    if config["query_expansion"]["num_neighbours"]:
        return {}
    why = (
        "with query_expansion.num_neighbours = 0, by which no query is expanded; set "
        "that above 0"
    )
    return {"query_expansion.alpha": why}


def idle_of_cache(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of copies on the local disk where there are none."""
    data = config["data"]
    # Benchmarks are never copied: they have none of the keys.
    if data.get("local_cache_dir") or "local_cache_dir" not in data:
        return {}
    why = (
        "without data.local_cache_dir, where the copies would be; give "
        "--config.data.local_cache_dir=DIR"
    )
    return {"data.local_cache_gb": why, "verify_cache": why}


def idle_of_normalization(
    config: Mapping[str, Any], *, training: str
) -> dict[str, str]:
    """How scores are normalised, where they are not.

    Args:
        config: the configuration as nested dictionaries.
        training: the dotted key that says by what; without it, or where it is not among
            the keys, nothing is normalised.
    """
    values = dict(leaves(config))
    if values.get(training):
        return {}
    why = "where nothing is normalised; choose a benchmark that has data.training"
    if training in values:
        why = (
            f"without {training}, by which scores are normalised; give "
            f"--config.{training}=DIR"
        )
    return {key: why for key in DEFAULTS if key.startswith("score_normalization.")}


def idle_of_training(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a training that its other keys leave without effect."""
    idle = idle_of_weights(config) | idle_of_cache(config)
    if why := why_no_margin_loss(config):
        idle |= dict.fromkeys(("beta_init", "beta_learning_rate_factor", "margin"), why)
    if config["instance_loss"] != "infonce":
        idle["temperature"] = (
            f'with instance_loss = "{config["instance_loss"]}", which has none; set '
            'instance_loss to "infonce"'
        )
    if config["classification_weight"] == 0:
        idle["label_smoothing"] = (
            "with classification_weight = 0.0: it is of the cross-entropy, which is "
            "not trained; set classification_weight above 0"
        )
    if not config["data"]["instances"]:
        idle["data.photos_per_instance"] = (
            "without data.instances, which says what photos are of one; give "
            "--config.data.instances=LEVEL"
        )
    return idle


def say_idle(config: Mapping[str, Any]) -> None:
    """Lines on what has no effect and is no mistake: recipes set it for all choices."""
    name = config["negative_sampling"]
    if name != "reference" and why_no_margin_loss(config):
        print(f"negative_sampling = {name!r} is without effect: no margin loss")
    schedule = config["learning_rate_schedule"]
    for key, default in DROPS.items() if schedule != "drops" else ():
        if (found := tuple(config[key])) != default:
            print(f"{key} = {found} is without effect: {schedule!r} has no drops")
    warmup, epochs = config["warmup_epochs"], config["num_epochs"]
    if 0 < epochs <= warmup:
        print(
            f"warmup_epochs = {warmup:g} with num_epochs = {epochs}: the learning rate "
            f"rises to the end, there to {epochs / warmup:.2g} of learning_rate"
        )


def why_no_margin_loss(config: Mapping[str, Any]) -> str:
    """Why a training has no margin loss, and what would change that; "": it has one."""
    if config["instance_loss"] == "infonce":
        return (
            'with instance_loss = "infonce", which takes the margin loss\'s place; set '
            'instance_loss to "margin"'
        )
    if config["classification_weight"] == 1:
        return (
            "with classification_weight = 1.0, which leaves the margin loss no weight; "
            "set classification_weight below 1"
        )
    return ""
