"""One run of measure/against_original.py: ours or the original is trained, and scored.

Nothing here imports JAX before a run begins.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from measure.machine import num_cores
from measure.original_runner import ROOT, Task, run_in_clone
from measure.quality_photos import (
    ORIGINALS,
    TEST,
    TRAIN,
    Photos,
    network_inputs_of,
)
from measure.quality_recipes import QUIET
from measure.quality_run import class_outcomes, copy_outcomes, embed_images
from measure.quality_scores import micro_ap, summarise
from measure.quality_table import HEADS, OFFSET_SHARE
from multigrain_jax.data.edits import EDITS

SIDES = OURS, ORIGINAL = "ours", "original"
# score -> the head of its column: those of measure/quality.py, and two more
METRICS = {
    **HEADS,
    "mean_similarity": "mean similarity",
    "cross_entropy": "cross-entropy",
}
# When the original lowers the learning rate, of its 120 epochs.
DROPS, OF_EPOCHS = (30, 60, 90), 120
RUN = "import sys; from measure.original_runner import main; main(sys.argv[1])"


class Settings(NamedTuple):
    """What both sides are trained with, and tested.

    Attributes:
        backbone: a ResNet.
        train_size: of crops, in pixels.
        test_size: of the photos that are scored.
        batch_size: one group of batch norm and of negatives.
        steps_per_epoch: whatever the number of photos; the last batch is a whole one.
        num_epochs: with the original's three drops at a quarter, a half and three
            quarters of them.
        learning_rate: before the drops.
    """

    backbone: str
    train_size: int
    test_size: int
    batch_size: int
    steps_per_epoch: int
    num_epochs: int
    learning_rate: float

    @property
    def drop_epochs(self) -> tuple[int, ...]:
        """The last epochs before each drop, counted from 0."""
        return tuple(drop * self.num_epochs // OF_EPOCHS for drop in DROPS)

    def epoch_length(self, num_images: int) -> float:
        """The factor by which an epoch is longer than the data set.

        Half a sample more than it should be is rounded down by both sides.
        """
        return (self.steps_per_epoch * self.batch_size + 0.5) / num_images


class Job(NamedTuple):
    """One run.

    Attributes:
        side: of `SIDES`.
        seed: of everything that is random.
        settings: of both sides.
        photos: both splits.
        clone: of the original.
        torchvision: the folder that holds version 0.2.2.
        threads: for the original's training.
        folder: of the lines of finished runs, logs, and what is removed after a run.
    """

    side: str
    seed: int
    settings: Settings
    photos: Photos
    clone: Path
    torchvision: Path
    threads: int
    folder: Path

    @property
    def name(self) -> str:
        """The side and the seed."""
        return f"{self.side}-seed{self.seed}"

    @property
    def made_of(self) -> dict[str, Any]:
        """What the result depends on, for the list of runs."""
        told = [self.settings._asdict(), self.photos.names, self.photos.labels]
        told += [self.photos.sizes(split) for split in (TRAIN, TEST)]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return {"side": self.side, "seed": self.seed, "made_of": digest}


def run_job(job: Job) -> dict[str, Any]:
    """Train, and score by the package's own evaluation; returns the run's line.

    What is printed goes to a file in the folder.

    Raises:
        InputError: the original's training ended with an error.
    """
    from multigrain_jax.runtime import keep_compiled_programs

    started = time.perf_counter()
    keep_compiled_programs()
    work = job.folder / "work" / job.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log_path = job.folder / "logs" / f"{job.name}.txt"
    log_path.parent.mkdir(exist_ok=True)
    with (
        log_path.open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        if job.side == OURS:
            workdir = _train_ours(job, work)
        else:
            workdir = _train_original(job, work, log_path)
        trained = time.perf_counter()
        scores = _score(job, workdir)
    shutil.rmtree(work)
    return {
        **job.made_of,
        "scores": scores,
        "train_seconds": round(trained - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def our_config(job: Job, *, lists: Path):
    """The configuration of our side, an `ml_collections` ConfigDict.

    The defaults are the original's already: what is set is what the comparison sets on
    both sides, and what makes the decoded and resized pixels the same.

    Args:
        job: the run.
        lists: the folder of train.txt.
    """
    from multigrain_jax.main import load_recipe

    config = load_recipe(str(ROOT / "configs" / "base.py"))
    settings, photos = job.settings, job.photos
    changes: Mapping[str, Any] = {
        **QUIET,
        "seed": job.seed,
        "backbone": settings.backbone,
        "num_classes": len(photos.class_names),
        "pooling_exponent": 3.0,
        "classification_weight": 0.5,
        "num_repeats": 3,
        "train_size": settings.train_size,
        "test_size": settings.test_size,
        "batch_size": settings.batch_size,
        "batch_norm_group_size": settings.batch_size,
        "sampling_group_size": settings.batch_size,
        "num_epochs": settings.num_epochs,
        "epoch_len_factor": settings.epoch_length(len(photos.names[TRAIN])),
        "learning_rate": settings.learning_rate,
        "learning_rate_drop_epochs": settings.drop_epochs,
        "compute_dtype": "float32",
        "crop_resize": "pillow",
        "data.source": "folder",
        "data.root": str(photos.root),
        "data.list_file": str(lists),
        "data.decoding": photos.pixels,
    }
    config.update_from_flattened_dict(dict(changes))
    return config


def original_arguments(settings: Settings, *, num_images: int) -> list[str]:
    """The arguments of the original's training script, for the same training.

    Args:
        settings: of both sides.
        num_images: of the training split.
    """
    values = {
        "expdir": "experiment",
        "imagenet-path": "photos",
        "backbone": settings.backbone,
        "pooling-exponent": 3.0,
        "classif-weight": 0.5,
        "repeated-augmentations": 3,
        "input-size": settings.train_size,
        "batch-size": settings.batch_size,
        "epochs": settings.num_epochs,
        "epoch-len-factor": settings.epoch_length(num_images),
        "learning-rate": settings.learning_rate,
        "lr-drops-epochs": ",".join(map(str, settings.drop_epochs)),
        "workers": 0,
        "save-every": 0,
    }
    given = [text for name, value in values.items() for text in (f"--{name}", value)]
    return [*map(str, given), "--no-cuda", "--no-validate-first"]


def _train_ours(job: Job, work: Path) -> Path:
    """The workdir of a finished training."""
    from multigrain_jax.tasks import train

    lists = work / "lists"
    everything = range(len(job.photos.names[TRAIN]))
    job.photos.write_list(lists / "train.txt", TRAIN, everything)
    workdir = work / "workdir"
    train.run(our_config(job, lists=lists), workdir)
    return workdir


def _train_original(job: Job, work: Path, log_path: Path) -> Path:
    """The workdir that a finished training's checkpoint is converted to.

    Raises:
        InputError: it ended with an error.
    """
    from multigrain_jax.convert.convert import convert_checkpoint

    photos, settings = job.photos, job.settings
    link_photos(photos, work / "photos")
    arguments = original_arguments(settings, num_images=len(photos.names[TRAIN]))
    task = Task(
        clone=str(job.clone.absolute()),
        torchvision=str(job.torchvision.absolute()),
        arguments=arguments,
        num_classes=len(photos.class_names),
        seed=job.seed,
        threads=job.threads,
    )
    run_in_clone(RUN, task, folder=work, log_path=log_path)
    checkpoint = work / "experiment" / f"checkpoint_{settings.num_epochs}.pth"
    workdir = work / "converted"
    convert_checkpoint(checkpoint, workdir, backbone=settings.backbone)
    return workdir


def link_photos(photos: Photos, folder: Path) -> None:
    """Links to the photos as the original looks for them.

    Its classes are folders whose names begin with n, in the order of their names, and
    so are the photos in them. It looks at one photo of each class after each epoch.

    Args:
        photos: both splits.
        folder: a new one, in which `train` and `val` are made.
    """
    for split, part in ((TRAIN, "train"), (TEST, "val")):
        seen = set[int]()
        rows = zip(photos.names[split], photos.labels[split], strict=True)
        for row, (name, label) in enumerate(rows):
            if part == "val" and label in seen:
                continue
            seen.add(label)
            link = folder / part / f"n{label:08d}" / f"{row:08d}{Path(name).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((photos.root / name).absolute())


def _score(job: Job, workdir: Path) -> dict[str, float]:
    """The scores `METRICS` of a checkpoint on the photos of the test split."""
    size, folder = job.settings.test_size, job.folder / "inputs"
    wanted = [*((TEST, edit) for edit in (ORIGINALS, *EDITS)), (TRAIN, ORIGINALS)]
    images = [
        network_inputs_of(job.photos, split, edit, test_size=size, folder=folder)
        for split, edit in wanted
    ]
    descriptors, logits = embed_images(workdir, np.concatenate(images))
    labels = np.array(job.photos.labels[TEST])
    count = len(labels)
    sets = np.split(descriptors, count * np.arange(1, len(EDITS) + 2))
    outcomes = {
        **class_outcomes(sets[0], logits[:count], labels),
        **copy_outcomes(sets[0], np.stack(sets[1:-1]), background=sets[-1]),
    }
    scores = summarise(outcomes)
    scores["micro_ap_normalized"] = micro_ap(outcomes, tuple(EDITS), share=OFFSET_SHARE)
    scores["mean_similarity"] = mean_similarity(sets[0])
    scores["cross_entropy"] = cross_entropy(logits[:count], labels)
    return {name: scores[name] for name in METRICS}


def mean_similarity(descriptors: np.ndarray) -> float:
    """The mean inner product of two different rows of float [N, D]."""
    rows = descriptors.astype(np.float64)
    total = float(np.sum(np.sum(rows, axis=0) ** 2) - np.sum(rows**2))
    return total / (len(rows) * (len(rows) - 1))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over rows of −log softmax at the label.

    Args:
        logits: [N, classes].
        labels: int [N].
    """
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    own = values[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.sum(np.exp(values), axis=1)) - own))


def threads_each(processes: int) -> int:
    """Cores for each of so many processes."""
    return max(1, num_cores() // max(1, processes))
