"""Embedding of photos in masked batches against one by one, in one run.

Photos of mixed sizes are made by cutting the quick start's; the model has random
weights. A table is printed: images per second of batches on a few canvas shapes, of
photos one by one, the ratio, and the largest difference between the two results. Both
run once before they are timed, so that compilation is not counted; how long that took
is in the table too.

    python tools/benchmark_eval.py
    python tools/benchmark_eval.py --backbone resnet50 --test-size 500 --num-photos 256
"""

import argparse
import io
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.image_source import ImageSource
from multigrain_jax.data.quickstart import QuickstartSource
from multigrain_jax.evaluation.embed import embed_all, make_embed_step
from multigrain_jax.mesh import compute_dtype, make_mesh
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.ops.color import normalize


class MixedPhotos(ImageSource):
    """Cuts of the quick start's photos, with sides like those of ImageNet's."""

    apply_exif_orientation = False

    def __init__(self, count: int):
        """Make `count` photos, the same every time."""
        photos = QuickstartSource("test")
        rng = np.random.default_rng(0)
        self.labels = np.zeros(count, np.int32)
        self.class_names = ["photo"]
        self._encoded = []
        for number in range(count):
            photo = Image.open(io.BytesIO(photos.read(number % len(photos))))
            # Most photos are 4:3 or 3:2, a quarter are upright.
            ratio = rng.choice([0.75, 0.667, 1.0, rng.uniform(0.4, 1.0)])
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", choices=list(BACKBONES))
    parser.add_argument("--test-size", type=int, default=224)
    parser.add_argument("--test-mode", default="rect", choices=["rect", "square"])
    parser.add_argument("--num-photos", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    row = BACKBONES[options.backbone]
    model = create_model(options.backbone, dtype=compute_dtype("auto"))
    model.eval()
    graphdef, variables = split_model(model)
    mesh = make_mesh(1)
    source = MixedPhotos(options.num_photos)

    def plan(batch_size: int):
        return plan_batches(
            source,
            test_size=options.test_size,
            test_mode=options.test_mode,
            batch_size=batch_size,
            smallest_side=row.smallest_side,
        )

    embed_step = make_embed_step(graphdef, backbone=row, mesh=mesh)
    planned = plan(options.batch_size)

    def in_batches() -> np.ndarray:
        batches = make_eval_batches(source, planned)
        return embed_all(embed_step, variables, batches, mesh=mesh).descriptors

    @jax.jit
    def embed_one(variables, image):
        pixels = normalize(image.astype(jnp.float32) / 255, row.mean, row.std)
        return merge_model(graphdef, variables)(pixels).normalized_embedding

    def one_by_one() -> np.ndarray:
        found = np.zeros((len(source), row.embedding_dim), np.float32)
        for batch in make_eval_batches(source, plan(1)):
            height, width = batch.get("size", [batch["image"].shape[1:3]])[0]
            image = batch["image"][:, :height, :width]
            found[batch["index"][0]] = embed_one(variables, image)[0]
        return found

    devices = jax.devices()
    print(f"{platform.machine()}, {devices[0].device_kind}, jax {jax.__version__}")
    print(f"{options.backbone}, {options.test_mode} {options.test_size}, {planned}")
    seconds, results = {}, {}
    for name, embed in (("masked batches", in_batches), ("one by one", one_by_one)):
        times = []
        for _ in range(2):
            started = time.perf_counter()
            results[name] = embed()
            times.append(time.perf_counter() - started)
        seconds[name] = times[1]
        print(
            f"{name:<16}{len(source) / times[1]:8.1f} images/s"
            f"   (first pass, with compilation: {times[0]:.1f} s)"
        )
    print(f"{'ratio':<16}{seconds['one by one'] / seconds['masked batches']:8.2f}")
    difference = np.abs(results["masked batches"] - results["one by one"]).max()
    largest = np.abs(results["one by one"]).max()
    print(f"{'difference':<16}{difference / largest:8.1e} of the largest value")


if __name__ == "__main__":
    main()
