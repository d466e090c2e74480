"""Refuses configurations that cannot work, before anything is built."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.data.sources.open import SOURCES
from multigrain_jax.engines.sessions import JAX, engine_problems
from multigrain_jax.errors import InputError
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.ops.refinement import REDUCTIONS
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.bounds import COUNT, as_tuple, leaves, number_problems
from multigrain_jax.tasks.idle import (
    idle_of_cache,
    idle_of_normalization,
    idle_problems,
)
from multigrain_jax.tasks.photos import photo_problems

COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float64")


def refuse(problems: Sequence[str]) -> None:
    """Raise one InputError that lists all problems, if there are any."""
    if problems:
        raise InputError("the configuration cannot work:\n  " + "\n  ".join(problems))


def choice_problems(
    config: Mapping[str, Any], choices: Mapping[str, Sequence[str]]
) -> list[str]:
    """A line for every key whose value is not among its choices."""
    return [
        f"{key}: found {config[key]!r}, expected one of {', '.join(allowed)}"
        for key, allowed in choices.items()
        if config[key] not in allowed
    ]


def dtype_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the dtype that a network is to compute in."""
    problems = choice_problems(config, {"compute_dtype": COMPUTE_DTYPES})
    # The checker does not know JAX's keys.
    jax_config: Any = jax.config
    if config["compute_dtype"] == "float64" and not jax_config.jax_enable_x64:
        problems.append(
            "compute_dtype: found 'float64', for which JAX would take float32: "
            "expected the environment variable JAX_ENABLE_X64=1 with it, or another of "
            f"{', '.join(COMPUTE_DTYPES)}"
        )
    return problems + _engine_problems(config)


def _engine_problems(config: Mapping[str, Any]) -> list[str]:
    """What is in the way of the engine that is to compute, where a task has others."""
    engine = config.get("engine", JAX)
    if problems := engine_problems(engine):
        return problems
    dtype = config["compute_dtype"]
    if (
        engine == JAX
        or dtype not in COMPUTE_DTYPES
        or compute_dtype(dtype) == "float32"
    ):
        return []
    return [
        f"compute_dtype: found {dtype!r}, here {compute_dtype(dtype)}, with engine = "
        f"{engine!r}, expected 'float32', in which that computes"
    ]


def normalization_problems(config: Mapping[str, Any], *, training: str) -> list[str]:
    """What is wrong with how scores are to be normalised.

    Args:
        config: the configuration as nested dictionaries.
        training: the dotted key that says by what, as of `idle_of_normalization`.
    """
    reduction = {"score_normalization.reduction": REDUCTIONS}
    return [
        *choice_problems(dict(leaves(config)), reduction),
        *idle_problems(config, idle_of_normalization(config, training=training)),
    ]


def data_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the `data` part of a configuration."""
    problems = photo_problems(data)
    if problems:
        return problems
    if data["source"] not in SOURCES:
        return [
            f"data.source: found {data['source']!r}, expected one of "
            f"{', '.join(SOURCES)}"
        ]
    if data["source"] != "quickstart" and not data["root"]:
        return [
            "data.root: found nothing, expected the folder of the images; give it "
            "with --config.data.root=DIR"
        ]
    if data.get("list_file") and data["source"] != "folder":
        return [
            f"data.list_file: found {data['list_file']!r} with data.source = "
            f"{data['source']!r}, of which no list is read; expected None, or source "
            "'folder'"
        ]
    fraction = data["val_fraction"]
    if fraction and data["source"] != "folder":
        return [
            f"data.val_fraction: found {fraction} with data.source = "
            f"{data['source']!r}, which has its own splits; expected 0"
        ]
    return []


def model_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the choice of a model to evaluate."""
    if config["init_from"]:
        return []
    return [
        "init_from: found nothing, expected a checkpoint: a workdir, a step folder or "
        "a published name, which `multigrain weights` lists; give it with "
        "--config.init_from=CHECKPOINT"
    ]


def evaluation_problems(config: Mapping[str, Any], *, num_devices: int) -> list[str]:
    """What is wrong with the keys that all evaluation tasks share.

    Args:
        config: the configuration as nested dictionaries; `test_size` may be a list.
        num_devices: how many devices share a batch.
    """
    problems = [
        *model_problems(config),
        *data_problems(config["data"]),
        *choice_problems(config, {"test_mode": TEST_MODES}),
        *dtype_problems(config),
        *number_problems(config),
        *idle_problems(config, idle_of_cache(config)),
    ]
    if not COUNT.wrong(config["batch_size"]) and config["batch_size"] % num_devices:
        problems.append(
            f"batch_size = {config['batch_size']} does not divide over {num_devices} "
            "devices; choose a multiple"
        )
    return problems


def size_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with sizes whose descriptors are averaged: one that comes twice."""
    sizes = as_tuple(config["test_size"])
    if len(set(sizes)) == len(sizes):
        return []
    return [
        f"test_size: found {sizes}, expected different ones; leave out the second of "
        "those that are equal"
    ]


def pooling_exponents(value: Any) -> tuple[float, ...]:
    """The exponents that a config's value means; "inf" is max-pool.

    There are none of None, and of "auto", which is known when the model is.
    """
    return () if value in (None, "auto") else tuple(float(p) for p in as_tuple(value))


def require_classifier(opened: OpenedModel) -> None:
    """Refuse a model without classes, for a task that scores them.

    Raises:
        InputError: it has none.
    """
    if opened.num_classes == 0:
        raise InputError(
            f"init_from: {opened.checkpoint.path} has no classifier (num_classes = 0), "
            "and this task needs one; train one on its trunk (--config."
            "pretrained_backbone in training), or score its descriptors "
            "(configs/eval_retrieval.py)"
        )


def require_photos(num_photos: int, key: str, path: str) -> None:
    """Refuse descriptors of no photo, in which nothing can be found.

    Raises:
        InputError: there are none.
    """
    if not num_photos:
        raise InputError(
            f"{key}: {path} has no descriptor of a photo; run `embed` there on a "
            "folder of photos that can be read"
        )


def path_problems(config: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """A line for every key that must name a file or folder and does not."""
    return [
        f"{key}: found nothing, expected a path; give it with --config.{key}=PATH"
        for key in keys
        if not config[key]
    ]
