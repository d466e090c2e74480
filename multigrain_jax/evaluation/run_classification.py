"""Task `eval_classification`: accuracy of a checkpoint on a labelled set."""

import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from multigrain_jax.data.image_source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.check import (
    evaluation_problems,
    pooling_exponents,
    refuse,
)
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    make_eval_step,
)
from multigrain_jax.evaluation.inputs import (
    batches_from_config,
    open_split,
    plan_from_config,
)
from multigrain_jax.inference import OpenedModel, open_model
from multigrain_jax.mesh import compute_dtype, make_mesh, put_replicated
from multigrain_jax.metric_writer import print_table, write_config, write_results
from multigrain_jax.models.multigrain import BACKBONES


def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Evaluate as the config says; returns what results.json holds.

    `<split>/top1`, `/top5` and `/cross_entropy`; with several exponents
    `<split>/p<exponent>/top1` and so on.

    Raises:
        InputError: a config, checkpoint or data that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(evaluation_problems(settings, num_devices=jax.device_count()))
    exponents = pooling_exponents(settings["pooling_exponent"])
    opened = open_model(
        config.init_from,
        step=config.init_step,
        dtype=compute_dtype(config.compute_dtype),
    )
    source = open_split(settings, config.data.split, opened.class_names or None)
    require_classes(source, opened)
    write_config(workdir, settings)

    mesh, backbone = make_mesh(), BACKBONES[opened.backbone]
    plan = plan_from_config(settings, source, backbone=backbone)
    print(f"{opened.backbone} from {opened.checkpoint.path}: {plan}", flush=True)
    each = evaluate_classification(
        make_eval_step(
            opened.graphdef,
            backbone=backbone,
            mesh=mesh,
            exponents=exponents or (None,),
        ),
        put_replicated(mesh, opened.variables),
        batches_from_config(settings, source, plan, workdir=workdir),
        mesh=mesh,
    )
    split = config.data.split or "all"
    prefixes = [split]
    if len(exponents) > 1:
        prefixes = [f"{split}/p{exponent:g}" for exponent in exponents]
    results = {
        f"{prefix}/{name}": value
        for prefix, scores in zip(prefixes, each, strict=True)
        for name, value in scores.items()
    }
    print_table(results)
    results["wasted_fraction"] = plan.wasted_fraction
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def require_classes(source: ImageSource, opened: OpenedModel) -> None:
    """Check that a set is labelled with the model's classes.

    Raises:
        InputError: images without labels, or another number of classes.
    """
    unlabelled = int((source.labels < 0).sum())
    if unlabelled:
        raise InputError(
            f"{unlabelled} of {len(source)} images have no label; expected one folder "
            "per class and no images beside the folders"
        )
    # A class that the evaluated part does not have is no mistake.
    if len(source.class_names) > opened.num_classes or (
        not opened.class_names and len(source.class_names) != opened.num_classes
    ):
        raise InputError(
            f"the images have {len(source.class_names)} classes, the classifier of "
            f"{opened.checkpoint.path} has {opened.num_classes}; expected the data set "
            "it was trained on"
        )
