"""What one sample of the training input costs by stage, and the floor.

Part of measure/input.py.
"""

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from measure.pytorch_input import Stage, reference_stages
from multigrain_jax.data.crops import random_crop_box
from multigrain_jax.data.decoding import PLAIN, decode
from multigrain_jax.data.simd_resize import crop_resizer, resolve_crop_resize
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.train_batches import HOST_AUGMENTATIONS

TRAIN_SIZE = 224
AREA_MIN = 0.08

# The ways to resize that are installed.
RESIZES = tuple(dict.fromkeys(("pillow", resolve_crop_resize("auto"))))

Case = tuple[str, int]  # augmentation, R


def stage_milliseconds(
    stages: dict[str, Stage], inputs: Sequence[Any]
) -> dict[str, float]:
    """Milliseconds per input of each stage, in one thread, the best of three."""
    found = {}
    for name, stage in stages.items():
        times = []
        for _ in range(3):
            started = time.perf_counter()
            outputs = [stage(each) for each in inputs]
            times.append(time.perf_counter() - started)
        found[name] = 1000 * min(times) / len(inputs)
        inputs = outputs
    return found


def own_stages(augmentation: str, resize: str, batch_size: int) -> dict[str, Stage]:
    """This package's chain for one sample, by stage."""
    import jax

    from multigrain_jax.mesh import make_mesh, put_batch

    rng = np.random.Generator(np.random.Philox(key=1))
    resized = crop_resizer(resize)
    mesh = make_mesh()
    batch = np.empty((batch_size, TRAIN_SIZE, TRAIN_SIZE, 3), np.uint8)
    place = itertools.cycle(range(batch_size))

    def crop(image: Image.Image) -> Image.Image:
        box = random_crop_box(rng, *image.size, area_min=AREA_MIN)
        return resized(image, box, TRAIN_SIZE)

    def policy(crop: Image.Image) -> Image.Image:
        return HOST_AUGMENTATIONS[augmentation](rng, crop)

    def assemble(image: Image.Image) -> None:
        batch[next(place)] = np.asarray(image)

    def transfer(_: None) -> None:
        # A whole batch once in a batch.
        if next(place) == 0:
            jax.block_until_ready(put_batch(mesh, {"image": batch}))

    stages: dict[str, Stage] = {
        "decode": partial(decode, decoding=PLAIN),
        "crop, resize": crop,
    }
    if augmentation in HOST_AUGMENTATIONS:
        stages["flip, policy"] = policy
    return {**stages, "into the batch": assemble, "to the device": transfer}


def print_profile(source: ImageSource, cases: Sequence[Case], batch_size: int) -> None:
    """Where the time of one sample goes, in each way, and the floor."""
    data = [source.read(n % len(source)) for n in range(batch_size)]
    for augmentation in dict.fromkeys(case[0] for case in cases):
        parts = {"original": reference_stages(augmentation, TRAIN_SIZE)}
        for resize in RESIZES:
            parts[resize] = own_stages(augmentation, resize, batch_size)
        spent = {name: stage_milliseconds(p, data) for name, p in parts.items()}
        for name, stages in spent.items():
            listed = ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items())
            print(f"{augmentation}, {name}, ms in one thread: {listed}")
        for repeats in (case[1] for case in cases if case[0] == augmentation):
            for resize in RESIZES:
                print_floor(f"{augmentation}, R = {repeats}", resize, repeats, spent)


def print_floor(
    title: str, resize: str, repeats: int, spent: dict[str, dict[str, float]]
) -> None:
    """What a sample must cost at least, and what all stages cost."""
    own, original = spent[resize], sum(spent["original"].values())
    needed = own["crop, resize"] + own.get("flip, policy", 0.0)
    floor = own["decode"] / repeats + needed
    total = sum(own.values()) - own["decode"] * (1 - 1 / repeats)
    print(
        f"{title}, {resize}: floor {floor:.2f} ms a sample = {1000 / floor:.0f} "
        f"images/s per core; all stages {total:.2f} ms; original's {original:.2f} ms, "
        f"{original / floor:.1f} times the floor"
    )
