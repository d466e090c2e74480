"""Task `eval_classification`: accuracy of a checkpoint on a labelled set."""

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.checkpoint.made_for import for_classes
from multigrain_jax.data.eval_batches import EvalPlan, make_eval_batches
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import own_folder
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    knn_top1,
)
from multigrain_jax.evaluation.embed import embed_all, embed_batches
from multigrain_jax.evaluation.engine_step import embed_step_of, eval_step_of
from multigrain_jax.evaluation.sharing import own_rows
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.tasks.check import (
    as_tuple,
    evaluation_problems,
    pooling_exponents,
    refuse,
)
from multigrain_jax.tasks.embed_defaults import take, with_a_mode
from multigrain_jax.tasks.final_report import can_be_found
from multigrain_jax.tasks.inputs import (
    open_labelled_split,
    plan_from_config,
    readable_batches,
    reading_from_config,
)
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.workdir import print_table, write_config, write_results


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Evaluate as the config says; returns what results.json holds.

    Of several hosts each reads its share of the images, and process 0 has results.
    `<split>/top1`, `/top5` and `/cross_entropy`; with several exponents
    `<split>/p<exponent>/top1` and so on; with `knn_probe`, `<split>/knn_top1` as well.

    Raises:
        InputError: a config, checkpoint or data that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    problems = evaluation_problems(
        with_a_mode(settings), num_devices=jax.device_count()
    )
    num_exponents = len(as_tuple(settings["pooling_exponent"]))
    if config.knn_probe and num_exponents > 1:
        problems.append(
            f"knn_probe: found {num_exponents} values of pooling_exponent, expected "
            "one; give one of them, or set knn_probe to False"
        )
    refuse(problems)
    exponents = pooling_exponents(settings["pooling_exponent"])
    opened = open_weights(
        settings, pooling_exponent=exponents[0] if len(exponents) == 1 else None
    )
    best = for_classes(
        opened.checkpoint.meta, default_size=opened.backbone.default_size
    )
    opened = take(best, settings, opened).for_inference(settings["engine"])
    source = open_labelled_split(settings, config.data.split, opened)
    write_config(own_folder(workdir), settings)

    mesh = make_mesh()
    plan = plan_from_config(
        settings, source, backbone=opened.backbone, test_size=settings["test_size"]
    )
    print(f"{opened.name} from {opened.checkpoint.path}: {plan}", flush=True)
    each = evaluate_classification(
        eval_step_of(
            opened.engine,
            opened.graphdef,
            backbone=opened.backbone,
            mesh=mesh,
            exponents=exponents or (None,),
        ),
        put_replicated(mesh, opened.variables),
        readable_batches(settings, source, plan, workdir=own_folder(workdir)),
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
    if config.knn_probe and can_be_found(source.labels, split=split):
        results[f"{split}/knn_top1"] = _probe(opened, source, plan, settings, mesh)
    if jax.process_index():
        return {}
    print_table(results)
    results["wasted_fraction"] = plan.wasted_fraction
    results["seconds"] = time.perf_counter() - started
    leave_if_taken(workdir)
    write_results(workdir, results)
    return results


def _probe(
    opened: OpenedModel,
    source: ImageSource,
    plan: EvalPlan,
    settings: Mapping[str, Any],
    mesh: Mesh,
) -> float:
    """`knn_top1` of the descriptors, on process 0: a second pass over the images."""
    step = embed_step_of(
        opened.engine, opened.graphdef, backbone=opened.backbone, mesh=mesh
    )
    reading = reading_from_config(settings)
    batches = make_eval_batches(source, own_rows(plan), reading=reading)
    variables = put_replicated(mesh, opened.variables)
    if jax.process_index():
        deque(embed_batches(step, variables, batches, mesh=mesh), maxlen=0)
        return 0.0
    return knn_top1(embed_all(step, variables, batches, mesh=mesh))
