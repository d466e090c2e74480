"""Which of the frames of a file is its picture."""

from PIL import Image

from multigrain_jax.data.pixels import channel_ranges

# Of formats whose frames are one picture after the other. (The second picture of an
# MPO file is another view, or a map of brightness.)
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")
MAX_FRAMES_TRIED = 64
# Fewer of large ones: as many pixels as two of the largest photos have.
MAX_PIXELS_TRIED = 256_000_000
# A frame whose channels vary by less is a plain area: black, before the film begins.
FLAT_RANGE = 8


def frame_to_show(image: Image.Image, notes: list[str]) -> Image.Image:
    """The first frame that is not one plain area, the first of all if none is.

    Args:
        image: opened, at its first frame.
        notes: where it is said that another frame is shown.
    """
    image.load()
    is_animated = image.format in ANIMATED and getattr(image, "is_animated", False)
    if not is_animated or image.tell() or not _is_flat(image):
        return image
    first, number, shown = image.copy(), 0, None
    size = image.size
    most = min(MAX_FRAMES_TRIED, MAX_PIXELS_TRIED // max(1, size[0] * size[1]))
    try:
        while shown is None and number < most:
            number += 1
            image.seek(number)
            # Pages of a TIFF may be of other sizes, which nobody has looked at.
            if image.size == size and not _is_flat(image):
                shown = image.copy()
    except Exception:
        shown = None  # no more frames, or damaged ones
    if shown is not None:
        count = getattr(image, "n_frames", number + 1)
        notes.append(
            f"the first frame that is not plain is shown, {number + 1} of {count}"
        )
    image.seek(0)
    return first if shown is None else shown


def _is_flat(image: Image.Image) -> bool:
    ranges = channel_ranges(image.convert("RGB"))
    return all(high - low < FLAT_RANGE for low, high in ranges)
