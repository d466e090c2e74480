"""Photos for tests: noise, that no two are alike, with a tint that tells the class."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multigrain_jax.data.orientation import TAG

CLASS_NAMES = ("ant", "bee", "cow")
MIXED_SIZES = ((40, 30), (30, 44), (64, 64), (100, 40), (36, 50), (60, 45))


def noise_photo(
    seed: np.random.Generator | int,
    size: tuple[int, int] = (48, 40),
    *,
    brightest: int = 120,
    tint: int | None = None,
    tint_by: int = 100,
) -> Image.Image:
    """A photo of noise.

    Args:
        seed: of the noise, or the generator that it comes from.
        size: width and height.
        brightest: values are below this, up to 256.
        tint: the channel that is brighter by `tint_by`; None: none is.
        tint_by: at most 256 - `brightest`.
    """
    rng = np.random.default_rng(seed)  # a generator stays as it is
    width, height = size
    pixels = rng.integers(0, brightest, (height, width, 3))
    if tint is not None:
        pixels[..., tint] += tint_by
    return Image.fromarray(pixels.astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The photo as a file's bytes; options as of `Image.save`."""
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def turned_jpeg(photo: Image.Image, orientation: int) -> bytes:
    """A photo as a JPEG that is to be turned: `photo` is what is stored."""
    exif = Image.Exif()
    exif[TAG] = orientation
    return encode(photo, "JPEG", quality=92, exif=exif)


def plain_photo(
    value: int | tuple[int, int, int] = 0,
    size: tuple[int, int] = (8, 6),
    *,
    kind: str = "JPEG",
    **options: Any,
) -> bytes:
    """The bytes of a photo of one grey or colour; options as of `Image.save`."""
    colour = (value,) * 3 if isinstance(value, int) else value
    return encode(Image.new("RGB", size, colour), kind, **options)


def write_noise_photos(
    root: Path,
    folders: Sequence[str] = CLASS_NAMES,
    *,
    count: int,
    sizes: Sequence[tuple[int, int]] = ((48, 40),),
    brightest: int = 120,
    tint_by: int = 100,
    seed: int = 0,
) -> Path:
    """Fill folders with `0.png`, `1.png`, … of noise, each folder with a tint; `root`.

    Args:
        root: where the folders are made.
        folders: their names; "." is `root` itself.
        count: photos in each folder.
        sizes: width and height of the photos, taken in turns.
        brightest: as of `noise_photo`.
        tint_by: as of `noise_photo`.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    for number, name in enumerate(folders):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for photo in range(count):
            size = sizes[photo % len(sizes)]
            tint = number % 3
            noise_photo(
                rng, size, brightest=brightest, tint=tint, tint_by=tint_by
            ).save(folder / f"{photo}.png")
    return root


def write_plain_photos(root: Path, names: Sequence[str]) -> Path:
    """Write photos of one grey each to paths below `root`, in the formats they name."""
    kinds = {".png": "PNG", ".webp": "WEBP"}
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = kinds.get(path.suffix.lower(), "JPEG")
        path.write_bytes(plain_photo(number, kind=kind))
    return root
