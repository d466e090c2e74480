"""Where things are in a photo that was decoded at a fraction of its size."""

from multigrain_jax.data.crops import Box
from multigrain_jax.data.orientation import ENDS_LEFT, ENDS_TOP

# Left, top, right, bottom, between pixels too.
Part = tuple[float, float, float, float]


def part_of_reduced(
    whole: tuple[int, int], reduced: tuple[int, int], orientation: int
) -> Part:
    """Which part of a reduced photo the whole one is.

    Where a side is no multiple of n, the last pixel of the stored rows or columns
    stands for less than n of them: up to n - 1 that are not there are behind its end,
    and after the photo was turned these may be at the left or at the top.

    Args:
        whole: width and height of the photo at its whole size, turned upright.
        reduced: the same of what it was decoded to, at 1 / n of its size.
        orientation: 1 to 8, from which it was turned upright; 1 if it was not.
    """
    fraction = max(round(w / r) for w, r in zip(whole, reduced, strict=True))
    width, height = (
        min(small, side / fraction) for side, small in zip(whole, reduced, strict=True)
    )
    left = reduced[0] - width if orientation in ENDS_LEFT else 0.0
    top = reduced[1] - height if orientation in ENDS_TOP else 0.0
    return left, top, left + width, top + height


def reduced_box(box: Box, whole: tuple[int, int], part: Part) -> Box:
    """A part of a photo in what it was decoded to; edges are at the nearest pixels.

    Args:
        box: left, top, right, bottom; in the whole photo, and not smaller than some
            pixels of the reduced one.
        whole: width and height of the whole photo.
        part: which part of the reduced photo that is, as of `part_of_reduced`.
    """
    (left, top, right, bottom), (width, height) = box, whole
    across, down = (part[2] - part[0]) / width, (part[3] - part[1]) / height
    return (
        round(part[0] + left * across),
        round(part[1] + top * down),
        round(part[0] + right * across),
        round(part[1] + bottom * down),
    )
