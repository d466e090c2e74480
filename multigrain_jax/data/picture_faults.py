"""What is wrong with a picture, by its pixels alone: dark, blurred, tiny, nearly empty.

Blur is measured as by Crete et al., "The blur effect: perception and estimation with a
new no-reference perceptual blur metric" (2007): blurring a sharp picture once more
takes most of the differences between neighbouring pixels away, and few of a blurred
one's.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from multigrain_jax.data.bucket_paths import file_path
from multigrain_jax.data.decoding import VIEWER, UndecodableImageError, decode
from multigrain_jax.data.image_file import quiet_pillow
from multigrain_jax.data.sources.files import require_readable

# Pictures are looked at with their longer side at most so long.
LOOKED_AT = 512
BLUR_WINDOW = 9  # pixels that the second blur averages, as in the paper
BRIGHT_SHARE = 0.95
ONE_SHADE = 8 / 255  # around the median of each channel


class PictureFacts(NamedTuple):
    """What a picture is like.

    Attributes:
        width: in pixels, as it is stored; None where that is not known.
        height: the same.
        brightness: which `BRIGHT_SHARE` of its pixels are darker than, from 0 (black)
            to 1 (white).
        blur: from 0 (sharp) to 1; None of a picture without any edge, and of one that
            is too small for the measure.
        one_shade: the share of its pixels that have nearly its median colour.
    """

    width: int | None
    height: int | None
    brightness: float
    blur: float | None
    one_shade: float


def look_at_file(path: str | Path) -> PictureFacts | None:
    """What the picture of a file is like; None where it cannot be read."""
    file = file_path(str(path))
    if not file.is_file():
        return None  # a pipe would never end
    try:
        require_readable(file, max_bytes=VIEWER.max_bytes)
        data = file.read_bytes()
        image = decode(data, VIEWER, side=LOOKED_AT)
    except (OSError, MemoryError, UndecodableImageError):
        return None
    width, height = _stored_size(data)
    return look_at(image)._replace(width=width, height=height)


def _stored_size(data: bytes) -> tuple[int | None, int | None]:
    """Of a picture that can be decoded; None of one that Pillow finds too large."""
    try:
        with quiet_pillow(), Image.open(io.BytesIO(data)) as opened:
            return opened.size
    except Exception:
        return None, None  # its header is broken, or mended by whoever decodes it


def look_at(image: Image.Image) -> PictureFacts:
    """What a picture is like, its size aside."""
    image = image.convert("RGB")
    scale = LOOKED_AT / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, np.float32) / 255
    # As television weights the channels.
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    median = np.median(pixels.reshape(-1, 3), axis=0)
    near = np.all(np.abs(pixels - median) <= ONE_SHADE, axis=2)
    return PictureFacts(
        None,
        None,
        float(np.quantile(grey, BRIGHT_SHARE)),
        blur_effect(grey),
        float(near.mean()),
    )


def blur_effect(grey: np.ndarray) -> float | None:
    """How blurred a picture is, from 0 to 1, along the worse of its two directions.

    1 - Σ max(0, D - D') / Σ D, where D are the differences of neighbouring pixels and
    D' those of the picture blurred along them. None where there is no difference, or
    fewer pixels than the blur needs.

    Args:
        grey: float [H, W].
    """
    if min(grey.shape) <= BLUR_WINDOW:
        return None
    found = []
    for values in (grey, grey.T):
        sums = np.cumsum(np.pad(values.astype(np.float64), ((1, 0), (0, 0))), axis=0)
        blurred = (sums[BLUR_WINDOW:] - sums[:-BLUR_WINDOW]) / BLUR_WINDOW
        half = BLUR_WINDOW // 2
        own = np.abs(np.diff(values[half : half + len(blurred)], axis=0))
        after = np.abs(np.diff(blurred, axis=0))
        total = float(own.sum(dtype=np.float64))
        if total > 1e-3 * own.size:
            found.append(1 - float(np.maximum(0, own - after).sum()) / total)
    return max(found) if found else None
