"""Task `finetune_pooling`: the pooling exponent p* for a larger test size."""

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from multigrain_jax.checkpoint import require_no_checkpoints
from multigrain_jax.data.eval_batches import EvalPlan, plan_ordered_batches
from multigrain_jax.data.sources.open import Subset
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.distributed import own_folder
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    make_eval_step,
)
from multigrain_jax.evaluation.inputs import features_of_uint8, network_inputs
from multigrain_jax.evaluation.sharing import (
    measure_together,
    require_same_images,
    widened,
)
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.metric_writer import MetricWriter
from multigrain_jax.models.multigrain import Backbone
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.pages.plots import write_plots
from multigrain_jax.runtime import compiler_options
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    evaluation_problems,
    refuse,
)
from multigrain_jax.tasks.inputs import (
    open_labelled_split,
    plan_from_config,
    readable_batches,
)
from multigrain_jax.tasks.prepare import one_writer, save_model
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.train.finetune_pooling import (
    finetune_pooling,
    make_pooling_optimizer,
    make_pooling_step,
)
from multigrain_jax.workdir import print_table, write_config, write_results

# Neither of the limits 1 and infinity, whose pooling is another program: with it the
# model reads p from its arrays.
ANY_EXPONENT = 2.0


@dataclass(frozen=True)
class _Task:
    """Everything that is built once from the config."""

    opened: OpenedModel
    backbone: Backbone
    exponent: float
    train_source: ImageSource
    val_source: ImageSource | None
    plan: EvalPlan
    mesh: Mesh


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Fine-tune p as the config says; returns what results.json holds.

    Of several hosts each reads its share of every batch, and process 0 saves and has
    results: `pooling_exponent` (p*), `init_pooling_exponent`, and the validation before
    and after: `before/top1`, `after/top1` and so on.

    Raises:
        InputError: a config, checkpoint or data that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    # A batch is small: as many devices of a host take part as divide its share of it.
    num_devices = 1
    if not number_problems(settings):
        share = -(-config.batch_size // jax.process_count())
        num_devices = math.gcd(share, jax.local_device_count())
    refuse(_problems(settings))
    require_no_checkpoints(workdir)
    task = _build(settings, make_mesh(num_devices))
    records = own_folder(workdir)
    write_config(records, settings)
    is_first = jax.process_index() == 0
    writer = MetricWriter(records if is_first else None, progress_total=len(task.plan))
    try:
        before = _validate(settings, task, task.exponent, records)
        writer.write(0, {"epoch": 0.0, **_named("val", before)})
        exponent = _finetune(settings, task, writer, records)
        after = _validate(settings, task, exponent, records)
        writer.write(len(task.plan), {"epoch": 1.0, **_named("val", after)})
    finally:
        writer.close()
    if not is_first:
        return {}
    model = dict(task.opened.checkpoint.model)
    dtype = np.asarray(model["pooling_exponent"]).dtype
    model["pooling_exponent"] = np.asarray(exponent, dtype)
    save_model(workdir, task.opened.checkpoint, model=model, record=settings)
    write_plots(workdir)
    results = {
        "init_pooling_exponent": task.exponent,
        "pooling_exponent": exponent,
        **_named("before", before),
        **_named("after", after),
    }
    print_table(results)
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def _problems(settings: Mapping[str, Any]) -> list[str]:
    # Batches are widened to the devices that take part.
    problems = evaluation_problems(settings, num_devices=1)
    if settings["test_mode"] != "rect":
        problems.append(
            f"test_mode: found {settings['test_mode']!r}, expected 'rect': p is "
            "fine-tuned on whole images"
        )
    if settings["pooling_exponent"] is not None:
        problems.append(
            "pooling_exponent: this task finds it; give the start as "
            "init_pooling_exponent"
        )
    return problems


def _build(settings: Mapping[str, Any], mesh: Mesh) -> _Task:
    opened = open_weights(settings, pooling_exponent=ANY_EXPONENT)
    split, val_split = settings["data"]["split"], settings["data"]["val_split"]
    source = open_labelled_split(settings, split, opened)
    val_source = None
    if val_split:
        val_source = open_labelled_split(settings, val_split, opened)
    chosen = first_of_each_class(source.labels, settings["images_per_class"])
    order = np.random.default_rng(settings["seed"]).permutation(len(chosen))
    backbone = opened.backbone
    train_source = Subset(source, chosen)
    require_same_images(train_source)
    measured = measure_together(
        train_source,
        order,
        test_size=settings["test_size"],
        smallest_side=backbone.smallest_side,
        timeout_s=settings["data_timeout_s"],
    )
    plan = plan_ordered_batches(
        order,
        test_size=settings["test_size"],
        batch_size=settings["batch_size"],
        smallest_side=backbone.smallest_side,
        measured=measured,
    )
    exponent = settings["init_pooling_exponent"]
    if exponent is None:
        exponent = float(opened.checkpoint.model["pooling_exponent"])
    print(f"{opened.name} from {opened.checkpoint.path}: {plan}", flush=True)
    return _Task(
        opened=opened,
        backbone=backbone,
        exponent=exponent,
        train_source=train_source,
        val_source=val_source,
        plan=widened(plan, multiple=mesh.size),
        mesh=mesh,
    )


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """The indices of the first `count` images of every class, class after class."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    number_in_class = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[number_in_class < count]


def _finetune(
    settings: Mapping[str, Any], task: _Task, writer: MetricWriter, workdir: Path
) -> float:
    """One pass; returns p*."""
    num_steps, every = len(task.plan), settings["log_every_steps"]
    tx = make_pooling_optimizer(num_steps, base=settings["learning_rate"])
    step = make_pooling_step(
        task.opened.graphdef,
        tx,
        make_features=partial(features_of_uint8, backbone=task.backbone),
        compiler_options=compiler_options(task.backbone),
    )
    exponent = task.exponent
    history = finetune_pooling(
        step,
        put_replicated(task.mesh, task.opened.variables),
        _train_batches(settings, task, workdir),
        tx=tx,
        exponent=exponent,
        fetch_every=every,
    )
    with contextlib.closing(history):
        for number, metrics in enumerate(history, start=1):
            exponent = metrics["pooling_exponent"]
            row = {"epoch": number / num_steps, **_named("train", metrics)}
            # Every step is on file, some of them on the terminal.
            if number % every == 0 or number == num_steps:
                writer.write(number, row)
            else:
                writer.record(number, row)
    return exponent


def _train_batches(
    settings: Mapping[str, Any], task: _Task, workdir: Path
) -> Generator[dict[str, jax.Array]]:
    for batch in readable_batches(
        settings, task.train_source, task.plan, workdir=workdir
    ):
        arrays = network_inputs({**batch, "mask": batch["mask"] & ~batch["bad"]})
        yield put_batch(task.mesh, arrays)


def _validate(
    settings: Mapping[str, Any], task: _Task, exponent: float, workdir: Path
) -> dict[str, float]:
    if task.val_source is None:
        return {}
    plan = plan_from_config(
        settings,
        task.val_source,
        backbone=task.backbone,
        test_size=settings["test_size"],
    )
    variables = task.opened.variables
    p = jnp.asarray(exponent, variables.pooling_exponent.dtype)
    (scores,) = evaluate_classification(
        make_eval_step(task.opened.graphdef, backbone=task.backbone, mesh=task.mesh),
        put_replicated(task.mesh, variables._replace(pooling_exponent=p)),
        readable_batches(
            settings,
            task.val_source,
            widened(plan, multiple=task.mesh.size),
            workdir=workdir,
        ),
        mesh=task.mesh,
    )
    return scores


def _named(prefix: str, scores: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in scores.items()}
