"""Embedding and classifying photos in masked batches against one by one, in one run.

Photos of mixed sizes are made by cutting the quick start's; the model has random
weights. For both tasks a table is printed: images per second of batches on a few canvas
shapes, of photos one by one at their own size, the ratio, and the largest difference
between the two results (descriptors; scores). All photos are read before, and each
task runs once before it is timed, so that neither reading nor compilation is counted;
their figures are printed too. As in the tasks, a CPU takes fewer large images at once
than --batch-size says. A quarter of the photos have a ratio of their own, and each such
shape is a program to compile for one by one: --few-shapes makes none of them.

    python measure/eval.py
    python measure/eval.py --backbone resnet18 --test-size 500
    python measure/eval.py --test-size 500 --num-photos 2048 --few-shapes  # a GPU
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.eval_batches import EvalPlan, make_eval_batches, plan_batches
from multigrain_jax.data.reading import HostBatch, Reading
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.evaluation.classification import (
    evaluate_classification,
    make_eval_step,
)
from multigrain_jax.evaluation.embed import embed_all, make_embed_step
from multigrain_jax.mesh import make_mesh
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    split_model,
)
from multigrain_jax.runtime import compute_dtype, images_at_once
from multigrain_jax.terminal import outlive_readers

READING = Reading(num_workers=0, prefetch=4, timeout_s=600.0)


class Photos(NamedTuple):
    """The photos as the tasks take them, in batches and one by one."""

    number: int
    in_batches: list[HostBatch]
    one_by_one: list[HostBatch]


class MixedPhotos(ImageSource):
    """Cuts of the quick start's photos, with sides like those of ImageNet's."""

    decoding = PLAIN

    def __init__(self, count: int, *, few_shapes: bool):
        """Make `count` photos, the same every time."""
        photos = QuickstartSource("test")
        rng = np.random.default_rng(0)
        self.labels = np.zeros(count, np.int32)
        self.class_names = ["photo"]
        self._encoded = []
        for number in range(count):
            photo = Image.open(io.BytesIO(photos.read(number % len(photos))))
            # Most photos are 4:3 or 3:2, a quarter are upright.
            others = [] if few_shapes else [rng.uniform(0.4, 1.0)]
            ratio = rng.choice([0.75, 0.667, 1.0, *others])
            width, height = 500, max(1, round(500 * ratio))
            if rng.random() < 0.25:
                width, height = height, width
            buffer = io.BytesIO()
            resized = photo.convert("RGB").resize((width, height))
            resized.save(buffer, "JPEG", quality=90)
            self._encoded.append(buffer.getvalue())

    def __len__(self) -> int:
        return len(self._encoded)

    def read(self, index: int) -> bytes:
        """The JPEG bytes of one photo."""
        return self._encoded[index]

    def describe(self, index: int) -> str:
        """Its number."""
        return f"photo {index}"


def alone(batches: Iterable[HostBatch]) -> Iterator[HostBatch]:
    """Batches of one photo each, cut to the photo's own size."""
    for batch in batches:
        whole = [batch["image"].shape[1:3]]
        height, width = batch.pop("size", whole)[0]
        yield batch | {"image": batch["image"][:, :height, :width]}


def compare(
    title: str, run: Callable[[Iterable[HostBatch]], np.ndarray], photos: Photos
) -> None:
    """Time a task both ways, and print its table."""
    ways = {"masked batches": photos.in_batches, "one by one": photos.one_by_one}
    seconds, results = {}, {}
    for name, batches in ways.items():
        times = []
        for _ in range(2):
            started = time.perf_counter()
            results[name] = run(batches)
            times.append(time.perf_counter() - started)
        seconds[name] = times[1]
        print(
            f"{title}, {name:<16}{photos.number / times[1]:8.1f} images/s"
            f"   (first pass, with compilation: {times[0]:.1f} s)"
        )
    ratio = seconds["one by one"] / seconds["masked batches"]
    difference = np.abs(results["masked batches"] - results["one by one"]).max()
    largest = np.abs(results["one by one"]).max()
    print(
        f"{title}, ratio {ratio:.2f}, difference {difference / largest:.1e} of the "
        "largest value"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=list(BACKBONES))
    parser.add_argument("--test-size", type=at_least(1), default=224)
    parser.add_argument("--test-mode", default="rect", choices=["rect", "square"])
    parser.add_argument("--num-photos", type=at_least(1), default=256)
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--only", choices=["embedding", "classification"])
    parser.add_argument(
        "--few-shapes", action="store_true", help="five, for fewer compilations"
    )
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax", "grain", "pillow"])
    row = BACKBONES[options.backbone]
    model = create_model(options.backbone, dtype=compute_dtype("auto"))
    model.eval()
    graphdef, variables = split_model(model)
    mesh = make_mesh(1)
    source = MixedPhotos(options.num_photos, few_shapes=options.few_shapes)

    def batches_of(batch_size: int) -> tuple[EvalPlan, list[HostBatch]]:
        plan = plan_batches(
            source,
            test_size=options.test_size,
            test_mode=options.test_mode,
            batch_size=images_at_once(batch_size, options.test_size),
            smallest_side=row.smallest_side,
            timeout_s=READING.timeout_s,
        )
        return plan, list(make_eval_batches(source, plan, reading=READING))

    embed_step = make_embed_step(graphdef, backbone=row, mesh=mesh)
    eval_step = make_eval_step(graphdef, backbone=row, mesh=mesh)

    def embedded(batches: Iterable[HostBatch]) -> np.ndarray:
        return embed_all(embed_step, variables, batches, mesh=mesh).descriptors

    def classified(batches: Iterable[HostBatch]) -> np.ndarray:
        (scores,) = evaluate_classification(eval_step, variables, batches, mesh=mesh)
        return np.array(list(scores.values()))

    started = time.perf_counter()
    planned, in_batches = batches_of(options.batch_size)
    reading = time.perf_counter() - started
    _, one_by_one = batches_of(1)
    print(f"{options.backbone}, {options.test_mode} {options.test_size}, {planned}")
    print(f"read and resized: {len(source) / reading:.1f} images/s")
    photos = Photos(len(source), in_batches, list(alone(one_by_one)))
    for task, run in {"embedding": embedded, "classification": classified}.items():
        if options.only in (None, task):
            compare(task, run, photos)


if __name__ == "__main__":
    outlive_readers()
    main()
