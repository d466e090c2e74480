"""From a photo, or its file, to what a network takes."""

from pathlib import Path

import numpy as np
from PIL import Image

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.crops import eval_transform
from multigrain_jax.data.decoding import (
    VIEWER,
    UndecodableImageError,
    decode,
    rgb_of_opened,
)
from multigrain_jax.data.sources.files import require_readable
from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.ops.color import normalize_pixels_on_host

# A file, or what `Image.open` gives of it.
Photo = str | Path | Image.Image


def preprocess(
    photo: Photo,
    test_size: int = 224,
    mode: str = "square",
    *,
    backbone: str = "resnet50",
) -> np.ndarray:
    """A photo as the network takes it: upright, resized, cropped and normalised.

    What `embed`, `search` and the evaluation of one's own folders see: the photo is
    turned as its EXIF orientation says. (ImageNet, TFDS and most benchmarks are
    evaluated as they are stored.) Pixel for pixel so with `data.decode=exact`, and of
    all but large JPEGs, which are decoded here at their whole size.

    Args:
        photo: a path; or the photo, as `Image.open` gives it; any mode, converted to
            RGB. It is not changed. Turn it yourself only with
            `ImageOps.exif_transpose`, which takes the orientation away; after
            `Image.rotate` or `Image.transpose` it still has one, by which it would be
            turned again.
        test_size: S, in pixels, at least 32.
        mode: "square": shorter side to int(256/224 · S), centre crop S × S; "rect":
            longer side to S, no crop.
        backbone: whose input mean and standard deviation.

    Returns:
        float32 [H, W, 3].

    Raises:
        InputError: a path of what cannot be read.
    """
    row = BACKBONES[backbone]
    if isinstance(photo, Image.Image):
        image = rgb_of_opened(photo, VIEWER)
    else:
        image = _read(as_path(photo))
    resized = eval_transform(image, test_size, mode, smallest_side=row.smallest_side)
    return normalize_pixels_on_host(np.asarray(resized), row.mean, row.std)


def _read(path: Path) -> Image.Image:
    try:
        require_readable(path, max_bytes=VIEWER.max_bytes)
        return decode(path.read_bytes(), VIEWER)
    except (OSError, UndecodableImageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"photo: {path} cannot be read ({reason}), expected a photo; give another "
            "path, or an image that Pillow has opened"
        ) from error
