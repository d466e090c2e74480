"""From an encoded photo to what a network is shown of it, but for its statistics."""

import io
from functools import partial

from multigrain_jax.data.crops import resize_and_crop, resized_size
from multigrain_jax.data.decoding import (
    Decoded,
    Decoding,
    UndecodableImageError,
    decode_noted,
    encoded_size,
)

# A photo that is decoded fast has at least so many times the sides that it is resized
# to: the detail that the resize averages over is still there.
FAST_GAP = 2


def network_image(
    data: bytes, decoding: Decoding, *, test_size: int, mode: str, smallest_side: int
) -> Decoded:
    """An encoded photo, resized and for "square" cropped; and what there is to say.

    Args:
        data: the file's bytes.
        decoding: how photos become pixels. If it is `fast`, a large JPEG is decoded at
            a fraction of its size; the image has the size that it has otherwise.
        test_size: S, in pixels.
        mode: "square" or "rect", as of `eval_transform`.
        smallest_side: what the shorter side of a "rect" image has at least.

    Raises:
        UndecodableImageError: it cannot be decoded; the message says why.
    """
    resized = partial(
        resized_size, test_size=test_size, mode=mode, smallest_side=smallest_side
    )
    if not decoding.fast:
        image, notes = decode_noted(data, decoding)
        shown, whole = resized(*image.size), None
    else:
        try:
            full = encoded_size(io.BytesIO(data), decoding)
        except UndecodableImageError:
            decode_noted(data, decoding)  # which says better what it is
            raise
        shown = resized(*full)
        image, notes = decode_noted(data, decoding, side=FAST_GAP * max(shown))
        whole = _whole(full, image.size)
    cropped = resize_and_crop(image, shown, test_size=test_size, mode=mode, whole=whole)
    return Decoded(cropped, notes)


def _whole(
    full: tuple[int, int], reduced: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Which part of a reduced photo the whole one is.

    A last row or column of pixels that are not all there is a whole one in it. (Of a
    photo that is turned upright it may be the first: half a pixel, at most.)
    """
    fraction = max(round(full[0] / reduced[0]), round(full[1] / reduced[1]))
    width, height = (
        min(small, side / fraction) for side, small in zip(full, reduced, strict=True)
    )
    return 0.0, 0.0, width, height
