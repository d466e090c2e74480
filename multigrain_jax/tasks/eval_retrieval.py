"""Task `eval_retrieval`: a checkpoint's scores on a retrieval benchmark."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.checkpoint import Checkpoint, load_checkpoint
from multigrain_jax.checkpoint.made_for import for_search
from multigrain_jax.data.benchmarks import (
    Benchmark,
    BenchmarkFiles,
    BenchmarkSource,
    Conduct,
    benchmark_row,
    departures,
    load_benchmark,
)
from multigrain_jax.data.benchmarks.comparable import WAYS
from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.distributed import own_folder
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import embed_batches
from multigrain_jax.evaluation.engine_step import embed_step_of
from multigrain_jax.evaluation.retrieval import (
    RetrievalScores,
    evaluate_retrieval,
    write_per_query_csv,
)
from multigrain_jax.growing_file import dispensable
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.opened_model import OpenedModel, open_checkpoint
from multigrain_jax.ops.refinement import (
    expand_queries,
    merge_scales,
    require_neighbours,
)
from multigrain_jax.pages.benchmark_page import write_benchmark_page
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.check import (
    as_tuple,
    evaluation_problems,
    normalization_problems,
    pooling_exponents,
    refuse,
    size_problems,
)
from multigrain_jax.tasks.embed_defaults import take, with_a_mode
from multigrain_jax.tasks.idle import idle_of_expansion, idle_problems
from multigrain_jax.tasks.inputs import plan_from_config, readable_batches
from multigrain_jax.tasks.photos import decoding_from_config
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.tasks.weights import say_which_weights
from multigrain_jax.weights import find_weights
from multigrain_jax.workdir import print_table, write_config, write_results

PER_QUERY_FILE = "per_query.csv"
# The keys of `data` that are paths.
FILE_KEYS = [f.name for f in dataclasses.fields(BenchmarkFiles) if f.name != "exclude"]


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Evaluate as the config says; returns the numbers that results.json holds.

    Of several hosts each reads its share of the images, and process 0 scores:
    `<benchmark>/<protocol>/map` and the protocol's other metrics, or `ukbench/score`,
    and how many of the protocol's queries have nothing to find; the file also holds
    where the run departs from that of published scores. Every query's average
    precision goes to per_query.csv, and what it found to report.html.

    Raises:
        InputError: a config, checkpoint or data that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    benchmark = _open_benchmark(settings)
    opened = _open_model(settings)
    write_config(own_folder(workdir), settings)
    descriptors = _describe(settings, opened, benchmark, own_folder(workdir))
    if jax.process_index():
        return {}
    database = _take(descriptors, benchmark.database)
    queries = _queries(settings, benchmark, descriptors, database)
    normalization = settings["score_normalization"]
    scores = evaluate_retrieval(
        benchmark,
        queries,
        database,
        training=_take(descriptors, benchmark.training),
        normalization_weight=normalization["weight"],
        normalization_neighbours=normalization["num_neighbours"],
        normalization_reduction=normalization["reduction"],
    )
    num_unreadable = int(np.sum(~np.any(descriptors, axis=1)))
    departed = departures(
        benchmark_row(settings["benchmark"]).rules,
        benchmark,
        _conduct(settings, opened, benchmark, num_unreadable=num_unreadable),
    )
    print_table(scores.results)
    _print_without_positives(benchmark, scores)
    for line in _circumstances(benchmark, departed):
        print(line)
    leave_if_taken(workdir)
    with dispensable(workdir / PER_QUERY_FILE):
        write_per_query_csv(workdir / PER_QUERY_FILE, benchmark, scores.queries)
    with dispensable(workdir / "report.html"):
        write_benchmark_page(
            workdir / "report.html",
            benchmark,
            queries,
            database,
            scores,
            subtitle=f"{opened.name} from {opened.checkpoint.path}: {len(queries)} "
            f"queries among {len(database)} images",
            circumstances=_circumstances(benchmark, departed),
        )
    results = {
        **scores.results,
        **{
            f"{protocol}/num_without_positives": number
            for protocol, number in scores.num_without_positives.items()
        },
        "num_queries": len(queries),
        "num_database": len(database),
        "num_unreadable": num_unreadable,
        "seconds": time.perf_counter() - started,
    }
    write_results(workdir, {**results, **departed})
    return results


def _queries(
    settings: Mapping[str, Any],
    benchmark: Benchmark,
    descriptors: np.ndarray,
    database: np.ndarray,
) -> np.ndarray:
    """The queries' descriptors, expanded if the config says so."""
    queries = _take(descriptors, benchmark.queries)
    expansion = settings["query_expansion"]
    if not expansion["num_neighbours"]:
        return queries
    return expand_queries(
        queries,
        database,
        num_neighbours=expansion["num_neighbours"],
        alpha=expansion["alpha"],
        itself=_where_in_database(benchmark),
    )


def _circumstances(
    benchmark: Benchmark, departed: Mapping[str, Sequence[str]]
) -> list[str]:
    """A line for each way in which the run departs from that of published scores."""
    return [
        f"these scores of {benchmark.name} are {WAYS[way]}: {line}"
        for way, lines in departed.items()
        for line in lines
    ]


def _print_without_positives(benchmark: Benchmark, scores: RetrievalScores) -> None:
    """What the scores leave out."""
    each = zip(scores.num_without_positives.items(), benchmark.protocols, strict=True)
    for (name, number), protocol in each:
        print(f"{name}: {number} of {len(protocol.queries)} queries have no positive")


def _conduct(
    settings: Mapping[str, Any],
    opened: OpenedModel,
    benchmark: Benchmark,
    *,
    num_unreadable: int,
) -> Conduct:
    """What the scores depend on, for the rules that compare it with published ones."""
    data, normalization = settings["data"], settings["score_normalization"]
    decoding = decoding_from_config(data, own_photos=benchmark.apply_exif_orientation)
    # Another network's head whitens too.
    whitening = opened.variables.whitening or opened.variables.head
    return Conduct(
        test_sizes=tuple(as_tuple(settings["test_size"])),
        test_mode=settings["test_mode"],
        pooling_exponent=opened.pooling_exponent,
        whitening_dim=opened.descriptor_dim if whitening else None,
        pixels=decoding.pixels,
        num_expanded=settings["query_expansion"]["num_neighbours"],
        normalization=(
            float(normalization["weight"]),
            normalization["num_neighbours"],
            normalization["reduction"],
        ),
        files=frozenset(name for name in FILE_KEYS if data.get(name)) - {"root"},
        counts=settings["expected_counts"],
        num_unreadable=num_unreadable,
    )


def _problems(settings: Mapping[str, Any]) -> list[str]:
    # To the shared checks, a benchmark is a folder.
    data = {**settings["data"], "source": "folder", "val_fraction": 0}
    problems = evaluation_problems(
        {**with_a_mode(settings), "data": data}, num_devices=jax.device_count()
    )
    problems += size_problems(settings)
    problems += normalization_problems(settings, training="data.training")
    problems += idle_problems(settings, idle_of_expansion(settings))
    exponent = settings["pooling_exponent"]
    if exponent is not None and len(as_tuple(exponent)) > 1:
        problems.append(f"pooling_exponent: found {exponent}, expected one")
    return problems


def _load_benchmark(settings: Mapping[str, Any]) -> Benchmark:
    data = settings["data"]
    given = {name: data[name] for name in FILE_KEYS if data.get(name)}
    files = {name: as_path(path) for name, path in given.items()}
    return load_benchmark(
        settings["benchmark"],
        BenchmarkFiles(**files, exclude=data["exclude"]),
        expected_counts=settings["expected_counts"],
    )


def _open_benchmark(settings: Mapping[str, Any]) -> Benchmark:
    """The benchmark, refused where it has too few training photos.

    Those that cannot be read are known when all are embedded, and refused then.
    """
    benchmark = _load_benchmark(settings)
    if len(benchmark.training):
        count = settings["score_normalization"]["num_neighbours"]
        require_neighbours(count, len(benchmark.training))
    return benchmark


def _open_model(settings: dict[str, Any]) -> OpenedModel:
    """The model; where the settings say "auto" they get what it was made for."""
    path = find_weights(settings["init_from"])
    checkpoint = load_checkpoint(
        path, step=settings["init_step"], raw=settings["init_raw"]
    )
    say_which_weights(checkpoint, raw=settings["init_raw"])
    if not settings["use_whitening"]:
        checkpoint = without_whitening(checkpoint)
    opened = open_checkpoint(
        checkpoint,
        pooling_exponent=next(
            iter(pooling_exponents(settings["pooling_exponent"])), None
        ),
        dtype=compute_dtype(settings["compute_dtype"]),
    )
    opened = take(for_search(checkpoint.meta), settings, opened)
    return opened.for_inference(settings["engine"])


def without_whitening(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose embeddings are those before the whitening.

    Only the embeddings: a classifier that the whitening was folded into loses what it
    needs, and its logits mean nothing.

    Raises:
        InputError: there is no whitening.
    """
    model = dict(checkpoint.model)
    whitening = model.pop("whitening", None)
    if not whitening:
        raise InputError(
            f"use_whitening = False: {checkpoint.path} has no whitening; leave it True"
        )
    params = dict(model["params"])
    if "classifier" in params:
        dim = len(whitening["mean"]) - 1
        kernel = params["classifier"]["kernel"][:dim]
        params["classifier"] = {**params["classifier"], "kernel": kernel}
    model["params"] = params
    return dataclasses.replace(checkpoint, model=model)


def _describe(
    settings: Mapping[str, Any],
    opened: OpenedModel,
    benchmark: Benchmark,
    workdir: Path,
) -> np.ndarray:
    """Descriptors of all images, float32 [images, D]; zeros for unreadable ones.

    Process 0 alone has them; the others keep no row.
    """
    mesh = make_mesh()
    own_photos = benchmark.apply_exif_orientation
    decoding = decoding_from_config(settings["data"], own_photos=own_photos)
    source = BenchmarkSource(benchmark, decoding)
    embed_step = embed_step_of(
        opened.engine, opened.graphdef, backbone=opened.backbone, mesh=mesh
    )
    variables = put_replicated(mesh, opened.variables)
    sizes = as_tuple(settings["test_size"])
    scales = []
    for size in sizes:
        plan = plan_from_config(
            settings, source, backbone=opened.backbone, test_size=size
        )
        print(f"{opened.name} from {opened.checkpoint.path}: {plan}", flush=True)
        batches = readable_batches(settings, source, plan, workdir=workdir)
        rows = np.empty((0, 0), np.float32)
        for batch in embed_batches(embed_step, variables, batches, mesh=mesh):
            if jax.process_index():
                continue
            values = batch.embedding if len(sizes) > 1 else batch.descriptors
            if not rows.size:
                rows = np.zeros((len(source), values.shape[1]), np.float32)
            rows[batch.indices[~batch.bad]] = values[~batch.bad]
        scales.append(rows)
    return merge_scales(scales) if len(sizes) > 1 else scales[0]


def _take(descriptors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, without copying them where they follow one another."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return descriptors[rows[0] : rows[0] + len(rows)]
    return descriptors[rows]


def _where_in_database(benchmark: Benchmark) -> np.ndarray:
    """Each query's own position in the database, -1 where it is not in it."""
    position = np.full(len(benchmark.paths), -1, np.int64)
    position[benchmark.database] = np.arange(len(benchmark.database))
    return position[benchmark.queries]
