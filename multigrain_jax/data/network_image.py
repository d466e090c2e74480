"""From an encoded photo to what a network is shown of it, but for its statistics."""

from functools import partial

from multigrain_jax.data.crops import resize_and_crop, resized_size
from multigrain_jax.data.decoding import Decoded, Decoding, decode_reduced

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

    def enough(width: int, height: int) -> int:
        # Both sides count: of a panorama `smallest_side` makes the shorter one longer.
        sides, longer = (width, height), max(width, height)
        return max(
            -(-FAST_GAP * target * longer // side)
            for target, side in zip(resized(*sides), sides, strict=True)
        )

    image, notes, whole, part = decode_reduced(data, decoding, side=enough)
    cropped = resize_and_crop(
        image, resized(*whole), test_size=test_size, mode=mode, part=part
    )
    return Decoded(cropped, notes)
