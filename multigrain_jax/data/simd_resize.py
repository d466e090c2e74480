"""Pillow's bilinear resize with vector instructions, for training crops."""

import importlib.util
import threading
from collections.abc import Callable

from PIL import Image

from multigrain_jax.data.crops import Box, cut, resize_crop
from multigrain_jax.errors import InputError

CROP_RESIZES = ("pillow", "simd")
# (image, box, size) to the crop.
CropResizer = Callable[[Image.Image, Box, int], Image.Image]
_PACKAGE = "cykooz_resizer"

# A resizer keeps a buffer and a lock, so every thread has its own.
_local = threading.local()


def resolve_crop_resize(name: str) -> str:
    """One of `CROP_RESIZES`: of "auto" the faster one that is installed."""
    if name != "auto":
        return name
    return "simd" if importlib.util.find_spec(_PACKAGE) else "pillow"


def crop_resizer(name: str) -> CropResizer:
    """The function that one of `CROP_RESIZES` names.

    Raises:
        InputError: no such way, or its package is not installed.
    """
    if name not in CROP_RESIZES:
        raise InputError(
            f"crop_resize: found {name!r}, expected auto or one of "
            f"{', '.join(CROP_RESIZES)}"
        )
    if name == "simd" and importlib.util.find_spec(_PACKAGE) is None:
        raise InputError(
            'crop_resize = "simd" needs the package cykooz-resizer, which is missing: '
            "pip install cykooz-resizer (it has wheels for x86-64, macOS and "
            'Windows), or set crop_resize to "pillow"'
        )
    return simd_resize_crop if name == "simd" else resize_crop


def simd_resize_crop(image: Image.Image, box: Box, size: int) -> Image.Image:
    """`resize_crop` three times as fast; values differ by at most 2 of 255.

    The same fixed-point sums as Pillow's, with coarser weights: a few values in a
    hundred are rounded to the other side, and differ by 1. Where that happens along
    the rows and along the columns they may differ by 2, which at most one in some ten
    million does. The bits are the same on every processor.

    Args:
        image: RGB.
        box: left, top, right, bottom; inside the image.
        size: side of the result.
    """
    import cykooz_resizer as simd

    if not hasattr(_local, "resizer"):
        _local.resizer = simd.Resizer()
        _local.options = simd.ResizeOptions(
            resize_alg=simd.ResizeAlg.convolution(simd.FilterType.bilinear)
        )
    resized = cut(image, box)
    # In Pillow's order, first along the rows: the other order, which a single call
    # would take, rounds one value in six differently.
    for shape in ((size, resized.height), (size, size)):
        source, resized = resized, Image.new("RGB", shape)
        _local.resizer.resize_pil(source, resized, _local.options)
    return resized
