"""Many descriptors from few photos: what approximate indexes are measured on.

Random vectors punish codes and lists, and tight clusters flatter them; so the rows are
descriptors of photos and of their edits, perturbed by a stated rule: row = unit(w · a +
(1 − w) · b + s · z), a any of these descriptors, b one of the `NEIGHBOURS` nearest of
a, w uniform in [0.5, 1], z normal with the covariance of all a − b, s = `SPREAD`. How
many dimensions the rows have of their own is estimated as by Levina and Bickel
(NIPS 2004), from the distances to the k nearest of all rows.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.descriptors.folder import OK, DescriptorSettings, ImageStamp
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.evaluation.copy_detection import CopySource
from multigrain_jax.evaluation.embed import embed_source, make_embed_step
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.opened_model import open_model
from multigrain_jax.runtime import compute_dtype

USED_EDITS = ("crop 50 %", "rotation 15° + flip", "strong")
NEIGHBOURS = 20
SPREAD = 1.0
BLOCK = 16_384


class Base(NamedTuple):
    """Descriptors of photos, and what rows are made of.

    Attributes:
        descriptors: float32 [n, D], of unit length.
        nearest: int64 [n, NEIGHBOURS], of each the nearest others.
        spread: [D, D], a square root of the covariance of differences to these.
    """

    descriptors: np.ndarray
    nearest: np.ndarray
    spread: np.ndarray


def photo_descriptors(
    checkpoint: str, num_photos: int, *, test_size: int
) -> np.ndarray:
    """Descriptors of quick-start photos and of their edits, float32 [n, D].

    Args:
        checkpoint: a workdir.
        num_photos: of the training split; each is embedded four times.
        test_size: S, in pixels.
    """
    opened = open_model(checkpoint, raw=False, dtype=compute_dtype("auto"))
    mesh = make_mesh()
    embed = partial(
        embed_source,
        embed_step=make_embed_step(
            opened.graphdef, backbone=opened.backbone, mesh=mesh
        ),
        variables=put_replicated(mesh, opened.variables),
        backbone=opened.backbone,
        test_size=test_size,
        test_mode="square",
        batch_size=64,
        reading=Reading(num_workers=0, prefetch=4, timeout_s=600.0),
        mesh=mesh,
    )
    source = QuickstartSource("train")
    chosen = np.linspace(0, len(source) - 1, min(num_photos, len(source))).astype(int)
    same = CopySource(source, chosen, lambda image: image)
    parts = [same, *(CopySource(source, chosen, EDITS[name]) for name in USED_EDITS)]
    return np.concatenate([embed(part).descriptors for part in parts])


def make_base(descriptors: np.ndarray, dim: int) -> Base:
    """What rows of `dim` dimensions are made of: the first principal components."""
    centred = descriptors - descriptors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    rows = unit(centred @ axes[:dim].T)
    index = DescriptorIndex([rows])
    nearest = index.search(rows, NEIGHBOURS + 1)[1][:, 1:]
    differences = (rows[:, None] - rows[nearest]).reshape(-1, rows.shape[1])
    values, vectors = np.linalg.eigh(np.cov(differences, rowvar=False))
    spread = vectors * np.sqrt(np.maximum(values, 0))
    return Base(rows, nearest, spread.T.astype(np.float32))


def make_rows(base: Base, count: int, *, seed: int) -> np.ndarray:
    """Rows by the rule above, float32 [count, D]."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(base.descriptors), count)
    second = base.nearest[first, rng.integers(0, NEIGHBOURS, count)]
    weight = rng.uniform(0.5, 1, (count, 1)).astype(np.float32)
    mixed = weight * base.descriptors[first] + (1 - weight) * base.descriptors[second]
    normal = rng.standard_normal((count, len(base.spread)), np.float32)
    return unit(mixed + SPREAD * normal @ base.spread)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at unit length, in float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_collection(folder: Path, base: Base, count: int) -> None:
    """A folder of descriptors as `embed` writes them, float16."""
    settings = DescriptorSettings(
        dim=base.descriptors.shape[1],
        dtype="float16",
        model_digest="measured",
        backbone="resnet18",
        pooling_exponent=3.0,
        test_size=64,
        test_mode="square",
        whitened=False,
    )
    images = [ImageStamp(f"/photos/{n // 500}/{n:08d}.jpg", n, 5) for n in range(count)]
    writer = DescriptorWriter(folder, settings, rows_per_shard=BLOCK)
    writer.begin(images, lambda indices: indices)
    for start in range(0, count, BLOCK):
        some = images[start : start + BLOCK]
        rows = make_rows(base, len(some), seed=1 + start)
        writer.add(some, rows, [OK] * len(some))
    writer.finish()


def intrinsic_dimension(similarities: np.ndarray) -> float:
    """Levina and Bickel's estimate from the similarities to the k nearest, [n, k].

    The mean over the inverse estimates of single rows, as MacKay and Ghahramani say.
    """
    distances = np.sqrt(np.maximum(2 - 2 * similarities.astype(np.float64), 1e-12))
    ratios = np.log(distances[:, -1:] / distances[:, :-1])
    return float(1 / (ratios.sum(axis=1) / (ratios.shape[1] - 1)).mean())
