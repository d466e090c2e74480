"""Task `sweep_pooling`: p* by trying a grid of exponents and test sizes."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from multigrain_jax.distributed import own_folder
from multigrain_jax.evaluation.classification import evaluate_classification
from multigrain_jax.evaluation.engine_step import eval_step_of
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.pages.plots import draw_curves, save_plot
from multigrain_jax.tasks.check import (
    evaluation_problems,
    pooling_exponents,
    refuse,
)
from multigrain_jax.tasks.inputs import (
    open_labelled_split,
    plan_from_config,
    readable_batches,
)
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.workdir import write_config, write_results

# test size -> exponent -> scores
Grid = Mapping[int, Mapping[float, Mapping[str, float]]]


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Evaluate the whole grid; returns what results.json holds.

    Of several hosts each reads its share of the images, and process 0 has results:
    `<size>/p<exponent>/top1`, `/top5` and `/cross_entropy` for every pair, and
    `<size>/best_pooling_exponent`. The table is printed, and drawn as
    plots/sweep_pooling.png.

    Raises:
        InputError: a config, checkpoint or data that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    problems = evaluation_problems(settings, num_devices=jax.device_count())
    if not problems and not pooling_exponents(settings["pooling_exponent"]):
        problems.append("pooling_exponent: found nothing, expected the grid, a list")
    refuse(problems)
    exponents = pooling_exponents(settings["pooling_exponent"])
    opened = open_weights(settings, pooling_exponent=None)
    opened = opened.for_inference(settings["engine"])
    source = open_labelled_split(settings, config.data.split, opened)
    records = own_folder(workdir)
    write_config(records, settings)

    mesh = make_mesh()
    eval_step = eval_step_of(
        opened.engine,
        opened.graphdef,
        backbone=opened.backbone,
        mesh=mesh,
        exponents=exponents,
    )
    variables = put_replicated(mesh, opened.variables)
    grid = {}
    for size in config.test_sizes:
        plan = plan_from_config(
            settings, source, backbone=opened.backbone, test_size=size
        )
        print(f"test_size {size}: {plan}", flush=True)
        each = evaluate_classification(
            eval_step,
            variables,
            readable_batches(settings, source, plan, workdir=records),
            mesh=mesh,
        )
        grid[size] = dict(zip(exponents, each, strict=True))
    if jax.process_index():
        return {}
    print(format_grid(grid, exponents))
    curves = {
        f"{size} px": [(p, scores["top1"]) for p, scores in row.items()]
        for size, row in grid.items()
    }
    figure = draw_curves(
        curves, title="Accuracy by pooling exponent", x_label="p", y_label="top-1"
    )
    leave_if_taken(workdir)
    save_plot(workdir, "sweep_pooling", figure)
    results = flatten_grid(grid)
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def best_exponent(row: Mapping[float, Mapping[str, float]]) -> float:
    """The exponent of the best top-1; of equals, that of the lower cross-entropy."""
    return max(row, key=lambda p: (row[p]["top1"], -row[p]["cross_entropy"]))


def flatten_grid(grid: Grid) -> dict[str, float]:
    """The grid as one flat object, with each size's best exponent."""
    results = {}
    for size, row in grid.items():
        for exponent, scores in row.items():
            for name, value in scores.items():
                results[f"{size}/p{exponent:g}/{name}"] = value
        results[f"{size}/best_pooling_exponent"] = best_exponent(row)
    return results


def format_grid(grid: Grid, exponents: Sequence[float]) -> str:
    """Top-1 as a table: a line for each exponent, a column for each size.

    A star marks the best of each column.
    """
    lines = ["top-1   p " + "".join(f"{f'{size} px':>10}" for size in grid)]
    for exponent in exponents:
        cells = []
        for row in grid.values():
            mark = "*" if exponent == best_exponent(row) else " "
            cells.append(f"{row[exponent]['top1']:9.4f}{mark}")
        lines.append(f"{exponent:9g} " + "".join(cells))
    return "\n".join(lines)
