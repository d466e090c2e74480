"""Photos with structure, and what becomes of them in a chat."""

import numpy as np
from PIL import Image


def scene(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A photo of large smooth patches, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)
