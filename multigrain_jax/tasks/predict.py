"""Task `predict`: the classes that a trained network sees in one's own photos."""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.checkpoint.made_for import made_for
from multigrain_jax.data.bucket_paths import absolute_path, as_path
from multigrain_jax.data.image_file import image_suffixes
from multigrain_jax.data.sources.folder import UNLABELLED, ImageFile
from multigrain_jax.data.sources.open import FileSource, open_split
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError, printable
from multigrain_jax.evaluation.embed import embed_batches
from multigrain_jax.evaluation.engine_step import embed_step_of
from multigrain_jax.evaluation.predictions import (
    Predictions,
    accuracies,
    collect_predictions,
)
from multigrain_jax.growing_file import dispensable
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.opened_model import OpenedModel, names_of_logits, open_checkpoint
from multigrain_jax.pages.prediction_page import write_prediction_page
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.check import (
    as_tuple,
    evaluation_problems,
    pooling_exponents,
    refuse,
)
from multigrain_jax.tasks.embed_record import SOURCES_OF_FILES
from multigrain_jax.tasks.inputs import (
    data_set_from_config,
    plan_from_config,
    readable_batches,
)
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.workdir import write_config, write_results, write_table

NUM_BEST = 5
# Of so few photos what was found is printed too.
PRINTED_PHOTOS = 10
TABLE = "predictions.csv"


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Predict as the config says; returns what results.json holds.

    `num_images` (with a prediction), `num_unreadable`, `num_labelled` (in a folder that
    is called like a class) and, of these, `accuracy` and `accuracy_of_best_5`.

    Raises:
        InputError: a config, checkpoint or photos that cannot work.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    opened, settings = _open_model(settings)
    if settings["data"]["root"] is not None:
        settings["data"]["root"] = absolute_path(settings["data"]["root"])
    source = _open_photos(settings)
    names = _class_names(opened, source)
    write_config(workdir, settings)
    predictions = _predict(opened, source, settings, workdir)
    labels = _labels(source, settings["data"], names)[predictions.indices]

    leave_if_taken(workdir)
    _write_table(workdir, predictions, source, names, labels)
    results: dict[str, float] = {
        "num_images": len(predictions.indices),
        "num_unreadable": predictions.num_unreadable,
        "num_labelled": int(np.sum(labels >= 0)),
        **accuracies(predictions, labels),
    }
    with dispensable(workdir / "report.html"):
        write_prediction_page(
            workdir / "report.html",
            predictions,
            source=source,
            class_names=names,
            labels=labels,
            made_by=str(opened.checkpoint.path),
        )
    _print_some(predictions, source, names)
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    print(f"the table is {workdir / TABLE}")
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def _problems(settings: Mapping[str, Any]) -> list[str]:
    # None is a mode too, the checkpoint's.
    checked = {**settings, "test_mode": settings["test_mode"] or "square"}
    problems = evaluation_problems(checked, num_devices=jax.device_count())
    if len(as_tuple(settings["pooling_exponent"])) > 1:
        problems.append("pooling_exponent: found several, expected one")
    return problems


def _open_model(settings: Mapping[str, Any]) -> tuple[OpenedModel, dict[str, Any]]:
    """The model, and the settings with the size and mode that it was made for.

    Raises:
        InputError: a model without classes.
    """
    exponent = next(iter(pooling_exponents(settings["pooling_exponent"])), None)
    opened = open_weights(settings, pooling_exponent=exponent)
    place = opened.checkpoint.path
    if opened.num_classes == 0:
        raise InputError(
            f"init_from: {place} has no classifier (num_classes = 0), so that it knows "
            "no classes to predict; train it on folders of yours (`multigrain train "
            "PHOTOS --pretrained-backbone CHECKPOINT`), or find similar photos with it "
            "(`multigrain embed`, then `multigrain search`)"
        )
    best = made_for(opened.checkpoint.meta, default_size=opened.backbone.default_size)
    size, mode = settings["test_size"], settings["test_mode"]
    if size is None and exponent is None and best.pooling_exponent is not None:
        # It is the one of that size.
        opened = open_checkpoint(
            opened.checkpoint,
            pooling_exponent=best.pooling_exponent,
            dtype=compute_dtype(settings["compute_dtype"]),
        )
    used = {"test_size": size or best.test_size, "test_mode": mode or best.test_mode}
    why = f", {best.origin}" if size is None else ""
    print(
        f"{opened.name} of {opened.num_classes} classes from {place}, at "
        f"{used['test_size']} pixels ({used['test_mode']}{why})"
    )
    return opened.for_inference(settings["engine"]), {**settings, **used}


def _open_photos(settings: Mapping[str, Any]) -> ImageSource:
    """The photos of a folder or a data set, or the one that `data.root` is."""
    data = settings["data"]
    data_set = dataclasses.replace(
        data_set_from_config(settings), unreadable_folders="skip"
    )
    if data["source"] == "folder" and not as_path(data["root"]).exists():
        raise InputError(
            f"data.root: {data['root']} is not there, expected a photo or a folder of "
            "photos; give it with --config.data.root=PATH"
        )
    if data["source"] != "folder" or not _is_photo(as_path(data["root"])):
        return open_split(data_set, data["split"])
    return FileSource(
        [ImageFile(data["root"], UNLABELLED)],
        class_names=[],
        decoding=data_set.decoding,
        local_cache_dir=None,
    )


def _is_photo(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(image_suffixes())


def _class_names(opened: OpenedModel, source: ImageSource) -> list[str]:
    """A name for each class of the model."""
    names = names_of_logits(opened)
    if names:
        return names
    if len(source.class_names) == opened.num_classes:
        print("the checkpoint names no classes: they are called as those of the data")
        return list(source.class_names)
    return [f"class {number}" for number in range(opened.num_classes)]


def _labels(
    source: ImageSource, data: Mapping[str, Any], names: Sequence[str]
) -> np.ndarray:
    """The class that each photo's folder names, int64 [N]; -1: none of the model's.

    That is the first folder below `data.root` that is called like one, so that parts
    (train/apple) and albums do not matter, or `data.root` itself.
    """
    numbers = {name: number for number, name in enumerate(names)}
    if data["source"] not in SOURCES_OF_FILES or data["list_file"]:
        known = [numbers.get(name, UNLABELLED) for name in source.class_names]
        return np.array([*known, UNLABELLED], np.int64)[source.labels]
    root = data["root"]
    if _is_photo(as_path(root)):
        root = os.path.dirname(root)
    above = os.path.basename(root)

    def label(index: int) -> int:
        folder = os.path.relpath(os.path.dirname(source.describe(index)), root)
        for name in (*folder.split(os.sep), above):
            if name in numbers:
                return numbers[name]
        return UNLABELLED

    return np.array([label(index) for index in range(len(source))], np.int64)


def _predict(
    opened: OpenedModel,
    source: ImageSource,
    settings: Mapping[str, Any],
    workdir: Path,
) -> Predictions:
    devices, mesh = jax.device_count(), make_mesh()
    # A photo alone is not worth a whole batch.
    rows = -(-min(settings["batch_size"], len(source)) // devices) * devices
    plan = plan_from_config(
        {**settings, "batch_size": rows},
        source,
        backbone=opened.backbone,
        test_size=settings["test_size"],
    )
    print(plan, flush=True)
    batches = embed_batches(
        embed_step_of(
            opened.engine, opened.graphdef, backbone=opened.backbone, mesh=mesh
        ),
        put_replicated(mesh, opened.variables),
        readable_batches(settings, source, plan, workdir=workdir),
        mesh=mesh,
    )
    return collect_predictions(batches, num_best=min(NUM_BEST, opened.num_classes))


def _write_table(
    workdir: Path,
    predictions: Predictions,
    source: ImageSource,
    names: Sequence[str],
    labels: np.ndarray,
) -> None:
    ranks = range(1, predictions.classes.shape[1] + 1)
    best = [f"{what}_{rank}" for rank in ranks for what in ("class", "probability")]

    def rows() -> Iterator[list[str | int | float]]:
        for place, index in enumerate(predictions.indices.tolist()):
            cells: list[str | int | float] = [source.describe(index)]
            for number, probability in _best_of(predictions, place):
                cells += [names[number], probability]
            label = int(labels[place])
            yield [
                *cells,
                float(predictions.margins[place]),
                float(predictions.entropies[place]),
                names[label] if label >= 0 else "",
            ]

    columns = ("path", *best, "margin", "entropy", "folder_class")
    write_table(workdir / TABLE, columns, rows())


def _best_of(predictions: Predictions, place: int) -> list[tuple[int, float]]:
    classes = predictions.classes[place].tolist()
    return list(zip(classes, predictions.probabilities[place].tolist(), strict=True))


def _print_some(
    predictions: Predictions, source: ImageSource, names: Sequence[str]
) -> None:
    if len(predictions.indices) > PRINTED_PHOTOS:
        return
    for place, index in enumerate(predictions.indices.tolist()):
        best = _best_of(predictions, place)
        said = ", ".join(f"{names[number]} {share:.1%}" for number, share in best)
        print(printable(f"{source.describe(index)}: {said}"))
