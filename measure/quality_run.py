"""One run of measure/quality.py: a recipe is trained, and scored photo by photo."""

import contextlib
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measure.quality_photos import (
    ORIGINALS,
    TEST,
    TRAIN,
    Photos,
    network_inputs_of,
)
from measure.quality_recipes import Changes, Setting, recipe_config
from measure.quality_scores import Outcomes, kept_outcomes, summarise
from multigrain_jax.data.benchmarks.copies import ROLES_SEED, assign_roles
from multigrain_jax.data.edits import EDITS
from multigrain_jax.files import write_atomically

EMBED_BATCH = 256
# As the Image Similarity Challenge normalises scores.
WEIGHT, NEIGHBOURS = 2.0, 10


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        recipe: its name.
        changes: its difference from the quick start.
        setting: how large the comparison is.
        seed: of everything that is random.
        photos: the photos.
        fold: which fold of the training photos is held out and scored; None: the test
            photos are scored, and all training photos trained on.
        trained_on: rows of the training split.
        scored: rows of it, or of the test split.
        steps: a trial of so many steps; None: a run.
        folder: where outcomes are kept, and everything else while it is needed.
    """

    recipe: str
    changes: Changes
    setting: Setting
    seed: int
    photos: Photos
    fold: int | None
    trained_on: np.ndarray
    scored: np.ndarray
    steps: int | None
    folder: Path

    @property
    def name(self) -> str:
        """The recipe, the seed and what is scored: of its files."""
        where = TEST if self.fold is None else f"fold{self.fold}"
        return f"{self.recipe}-seed{self.seed}-{where}"

    @property
    def made_of(self) -> dict[str, Any]:
        """What the result depends on, for a list of runs."""
        told = [*(part.tolist() for part in (self.trained_on, self.scored))]
        told += [self.changes, self.setting.changes, self.setting.steps_per_epoch]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return {"recipe": self.recipe, "seed": self.seed, "made_of": digest}


def run_job(job: Job) -> dict[str, Any]:
    """Train and score; returns what the list of runs holds of it.

    What the run prints goes to a file in the folder, per-photo outcomes to another.

    Raises:
        InputError: a recipe that this version does not know, or photos that cannot do.
        NonFiniteLossError: training diverged.
    """
    import jax

    from multigrain_jax.runtime import compute_dtype, keep_compiled_programs
    from multigrain_jax.tasks import train

    started = time.perf_counter()
    keep_compiled_programs()
    workdir = job.folder / "work" / job.name
    shutil.rmtree(workdir, ignore_errors=True)
    logs = job.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    lists = job.folder / "lists" / job.name
    job.photos.write_list(lists / "train.txt", TRAIN, job.trained_on)
    config = recipe_config(
        job.changes,
        job.setting,
        num_images=len(job.trained_on),
        num_classes=len(job.photos.class_names),
        seed=job.seed,
        steps=job.steps,
    )
    config.data.source, config.data.root = "folder", str(job.photos.root)
    config.data.list_file, config.data.decoding = str(lists), job.photos.pixels
    with (
        (logs / f"{job.name}.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        train.run(config, workdir)
        trained = time.perf_counter()
        outcomes, scores = _score(job, workdir, config.test_size)
    path = job.folder / "outcomes" / f"{job.name}.npz"
    path.parent.mkdir(exist_ok=True)
    with write_atomically(path) as file:
        # The checker takes the arrays' names for options.
        savez: Any = np.savez_compressed
        savez(file, **kept_outcomes(outcomes))
    shutil.rmtree(workdir)
    shutil.rmtree(lists)
    return {
        **job.made_of,
        "fold": job.fold,
        "num_scored": len(job.scored),
        "machine": f"{jax.devices()[0].device_kind}, {compute_dtype('auto')}",
        "outcomes": path.name,
        "scores": scores,
        "train_seconds": round(trained - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _score(
    job: Job, workdir: Path, test_size: int
) -> tuple[Outcomes, dict[str, float]]:
    """The outcomes of a trained model, and its scores."""
    split = TEST if job.fold is None else TRAIN
    folder = job.photos.root / "inputs"

    def inputs(part: str, edit: str) -> np.ndarray:
        return network_inputs_of(
            job.photos, part, edit, test_size=test_size, folder=folder
        )

    images = [inputs(split, edit)[job.scored] for edit in (ORIGINALS, *EDITS)]
    images.append(inputs(TRAIN, ORIGINALS)[job.trained_on])
    labels = np.array(job.photos.labels[split])[job.scored]
    descriptors, logits = embed_images(workdir, np.concatenate(images))
    count = len(job.scored)
    sets = np.split(descriptors, count * np.arange(1, len(EDITS) + 2))
    outcomes = {
        **class_outcomes(sets[0], logits[:count], labels),
        **copy_outcomes(sets[0], np.stack(sets[1:-1]), background=sets[-1]),
    }
    return outcomes, summarise(outcomes)


def embed_images(workdir: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors and logits of uint8 [M, S, S, 3], by the newest checkpoint."""
    from multigrain_jax.evaluation.embed import embed_all, make_embed_step
    from multigrain_jax.mesh import make_mesh, put_replicated
    from multigrain_jax.models.multigrain import class_logits
    from multigrain_jax.opened_model import open_model
    from multigrain_jax.runtime import compute_dtype, images_at_once

    opened, mesh = open_model(workdir, dtype=compute_dtype("auto")), make_mesh()
    size = images_at_once(EMBED_BATCH, images.shape[1])

    def batches():
        for start in range(0, len(images), size):
            image = images[start : start + size]
            missing = size - len(image)
            index = np.full(size, -1, np.int32)
            index[: len(image)] = start + np.arange(len(image))
            yield {
                "image": np.pad(image, ((0, missing), (0, 0), (0, 0), (0, 0))),
                "label": np.full(size, -1, np.int32),
                "index": index,
                "mask": index >= 0,
                "bad": np.zeros(size, bool),
            }

    embedded = embed_all(
        make_embed_step(opened.graphdef, backbone=opened.backbone, mesh=mesh),
        put_replicated(mesh, opened.variables),
        batches(),
        mesh=mesh,
    )
    return embedded.descriptors, class_logits(embedded.logits)


def class_outcomes(
    descriptors: np.ndarray, logits: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """What became of each photo as to its class.

    Args:
        descriptors: float32 [N, D], of unit length.
        logits: [N, classes].
        labels: int [N].

    Returns:
        `top1` bool [N]; and of photos that are not alone in their class `class_map`
        float32 (average precision) and `knn_top1` bool, whose rows of the photos are
        `class_rows`.
    """
    from multigrain_jax.evaluation.classification import alone_in_class
    from multigrain_jax.ops.ranking import average_precisions, label_ranks

    rows = np.flatnonzero(~alone_in_class(labels))
    similarity = descriptors[rows] @ descriptors.T
    itself = np.arange(len(labels)) == rows[:, None]
    relevant = labels[rows, None] == labels
    nearest = np.where(itself, -np.inf, similarity).argmax(axis=1)
    return {
        "top1": label_ranks(logits, labels) == 0,
        "class_rows": rows,
        "class_map": np.array(
            average_precisions(similarity, relevant, ignored=itself), np.float32
        ),
        "knn_top1": labels[nearest] == labels[rows],
    }


def copy_outcomes(
    descriptors: np.ndarray, copies: np.ndarray, *, background: np.ndarray
) -> dict[str, np.ndarray]:
    """What became of the copies of each photo.

    Args:
        descriptors: float32 [N, D], of the photos.
        copies: float32 [E, N, D], of their copies by each edit.
        background: float32 [T, D], of photos by which scores are normalised.

    Returns:
        `ranks` int32 [E, N], of the original among the N photos, 0-based. Of the
        benchmark of `assign_roles`: `right` float32 [E, R], similarity of each
        reference's copy to it; `wrong` float32 [E, R + S, K], of each copy to the other
        photos of the database, copies of references first, then of strangers, in which
        case one of them, the least like it, is left out; `query_photos` int64 [R + S];
        `offsets` float32 [E, R + S], what a normalisation subtracts.
    """
    from multigrain_jax.ops.ranking import rank_positives
    from multigrain_jax.ops.refinement import score_offsets

    count = len(descriptors)
    own = np.eye(count, dtype=bool)
    ranks = [np.concatenate(rank_positives(c @ descriptors.T, own)) for c in copies]
    roles = assign_roles(count, seed=ROLES_SEED)
    queries = np.concatenate([roles.references, roles.strangers])
    database = np.concatenate([roles.references, roles.distractors])
    similarity = copies[:, queries] @ descriptors[database].T
    places = np.arange(len(roles.references))
    right = similarity[:, places, places].copy()
    similarity[:, places, places] = -np.inf
    nearest = copies[:, queries] @ background.T
    taken = min(NEIGHBOURS, len(background))
    nearest = np.partition(nearest, -taken, axis=-1)[..., -taken:]
    offsets = [score_offsets(rows, weight=WEIGHT, reduction="nth") for rows in nearest]
    return {
        "ranks": np.stack(ranks).astype(np.int32),
        "right": right,
        "wrong": np.sort(similarity, axis=-1)[..., 1:],
        "query_photos": queries,
        "offsets": np.stack(offsets),
    }
