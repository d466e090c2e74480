"""From pixels of any mode to RGB, with the colours that a viewer shows."""

import functools
import io
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, TiffImagePlugin

from multigrain_jax.data.mending import png_chunks

SIXTEEN_BITS = 65535
# A picture below this uses a sixteenth of 16 bits: as 12 bits in 16 look.
SIXTEENTH = 4096
THIRTY_TWO_BITS = 2**32 - 1
DEEP_CHANNELS = ("RGB;16", "RGBA;16", "LA;16")  # of which Pillow reads the upper half
MAX_SAMPLE_VALUE = 281  # a tag of TIFF
BLOCK_PIXELS = 1 << 20
# Of a profile that changes no value of 255 by more, every colour is sRGB's.
SAME_WITHIN = 2
PROFILES_KEPT = 32
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
BAD_PROFILE = "its colour profile cannot be used: colours are taken as sRGB"

Colour = tuple[int, int, int]


class Depth(NamedTuple):
    """What a file says of its depth, as far as Pillow's image does not.

    Attributes:
        largest: the largest value that its metadata allows; None where it has none.
        is_halved: whether Pillow gives the upper 8 of 16 bits.
    """

    largest: int | None
    is_halved: bool


def stored_depth(image: Image.Image) -> Depth:
    """What an opened image that is not loaded says of its depth."""
    largest: int | None = None
    tile = getattr(image, "tile", None)
    raw_mode = ""
    if tile:
        arguments = tile[0][3]
        raw_mode = arguments if isinstance(arguments, str) else ""
        if isinstance(arguments, tuple) and arguments and isinstance(arguments[0], str):
            raw_mode = arguments[0]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        value = image.tag_v2.get(MAX_SAMPLE_VALUE)
        value = value[0] if isinstance(value, tuple) and value else value
        largest = value if isinstance(value, int) and value > 255 else None
    elif image.format == "PNG" and image.mode.startswith("I") and tile:
        largest = _significant(image)
    return Depth(largest, raw_mode.startswith(DEEP_CHANNELS))


def _significant(image: Image.Image) -> int | None:
    """The largest value of as many bits as a PNG calls significant."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    place = file.tell()
    try:
        for chunk in png_chunks(file, (b"sBIT", b"IDAT", b"IEND")):
            if chunk.kind != b"sBIT":
                return None
            if chunk.is_sound and len(chunk.data) == 1 and 8 < chunk.data[0] < 16:
                return (1 << chunk.data[0]) - 1
    finally:
        file.seek(place)
    return None


def viewer_rgb(
    image: Image.Image,
    depth: Depth,
    *,
    background: Colour,
    by_maximum: bool,
    notes: list[str],
) -> Image.Image:
    """A loaded image as RGB, with the colours that a viewer shows.

    The image given is not changed, and is returned itself where it is sRGB already.

    Args:
        image: of any mode.
        depth: what `stored_depth` found.
        background: what transparent parts show.
        by_maximum: whether the brightest value of a 16-bit image is white.
        notes: what there is to say is added here.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        colours, alpha = _eight_bits(image, depth, by_maximum, notes), None
    else:
        colours, alpha = _colours_and_alpha(image)
    if depth.is_halved:
        colours = _stretched(colours, by_maximum, notes)
    colours = _as_srgb(colours, profile, notes)
    if alpha is None:
        return colours
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(colours, mask=alpha)
    return canvas


def _eight_bits(
    image: Image.Image, depth: Depth, by_maximum: bool, notes: list[str]
) -> Image.Image:
    """Grey of 16 or 32 bits as mode "L"."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    highest = float(finite.max(initial=0))
    if image.mode.startswith("I;16"):
        scale = float(SIXTEEN_BITS)
        if depth.largest is not None and highest <= depth.largest:
            scale = float(depth.largest)
    else:
        # The 32-bit modes do not say what range they use.
        ranges = (255.0, float(SIXTEEN_BITS), float(THIRTY_TWO_BITS))
        if image.mode == "F" and highest <= 1:
            ranges = (1.0,)
        scale = next((top for top in ranges if highest <= top), highest)
    if by_maximum and highest > 0:
        scale = highest
    if scale == SIXTEEN_BITS and 0 < highest < SIXTEENTH:
        notes.append(_dark(f"{highest:.0f} of {SIXTEEN_BITS}"))
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, BLOCK_PIXELS // max(1, image.width))
    for start in range(0, len(values), rows):
        block = values[start : start + rows].astype(np.float64)
        block = np.nan_to_num(block, posinf=scale) / (scale / 255)
        grey[start : start + rows] = np.clip(np.round(block), 0, 255)
    return Image.fromarray(grey)


def _dark(largest: str) -> str:
    return (
        f"uses a sixteenth of its range or less (its largest value is {largest}): "
        "--config.data.depth=maximum makes that value white"
    )


def _stretched(image: Image.Image, by_maximum: bool, notes: list[str]) -> Image.Image:
    """Colours of which the upper 8 of 16 bits are there."""
    ranges = channel_ranges(image)
    highest = max(high for _, high in ranges)
    if by_maximum and 0 < highest < 255:
        table = [min(255, round(255 * value / highest)) for value in range(256)]
        return image.point(table * len(ranges))
    if 0 < highest < SIXTEENTH // 256:
        notes.append(_dark(f"{highest} of 255 in its upper half"))
    return image


def channel_ranges(image: Image.Image) -> list[tuple[int, int]]:
    """The smallest and the largest value of each channel of 8 bits."""
    extrema = image.getextrema()
    return cast(list, list(extrema) if isinstance(extrema[0], tuple) else [extrema])


def _colours_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours of one of the modes L, RGB, CMYK and LAB, and how opaque they are."""
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        if image.mode in ("L", "RGB", "CMYK", "LAB"):
            return image, None
        return image.convert("L" if image.mode == "1" else "RGB"), None
    if image.mode == "La":
        image = image.convert("LA")
    is_grey = image.mode in ("LA", "L", "1")
    with_alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    colours = with_alpha.convert("RGB")
    # The three channels of a grey image are the same.
    colours = colours.getchannel(0) if is_grey else colours
    return colours, with_alpha.getchannel("A")


def _as_srgb(image: Image.Image, profile: object, notes: list[str]) -> Image.Image:
    if image.mode == "LAB" or (isinstance(profile, bytes) and profile):
        found = _transform(profile if isinstance(profile, bytes) else b"", image.mode)
        if isinstance(found, str):
            notes.append(found)
        elif found is not None:
            from PIL import ImageCms

            converted = ImageCms.applyTransform(image, found)
            assert converted is not None  # it is not done in place
            return converted
    if image.mode == "LAB":
        raise OSError("Lab colours need littlecms2, which this Pillow lacks")
    return image.convert("RGB") if image.mode != "RGB" else image


@functools.lru_cache(maxsize=PROFILES_KEPT)
def _transform(profile: bytes, mode: str):
    """What makes sRGB of a profile's colours; None: they are; a text: why it cannot."""
    try:
        from PIL import ImageCms
    except ImportError:
        return BAD_PROFILE
    try:
        # Pillow's Lab is that of the profile connection space.
        source = (
            ImageCms.createProfile("LAB")
            if mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        )
        made = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode in ("RGB", "L"):
            probe = _probe(mode)
            converted = ImageCms.applyTransform(probe, made)
            assert converted is not None  # it is not done in place
            difference = np.asarray(converted, np.int16) - np.asarray(
                probe.convert("RGB"), np.int16
            )
            if np.abs(difference).max() <= SAME_WITHIN:
                return None
    except Exception:
        # A profile may be wrong in any way, or of another kind of colours.
        return BAD_PROFILE
    return made


def _probe(mode: str) -> Image.Image:
    """All values of a channel, or colours all over the cube."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    return Image.fromarray(cube.reshape(17, -1, 3))


def plain_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB by Pillow's own conversion.

    Transparent parts show what lies under them, profiles do not count; 16 bits are
    scaled to 8.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        # 16 bits to 8; Pillow's own conversion would clip everything above 255. The
        # 32-bit modes do not say what range they use.
        sixteen_bits = image.mode.startswith("I;16") or values.max(initial=0) > 255
        scale = 257.0 if sixteen_bits else 1.0
        grey = np.clip(np.round(values / scale), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB, Pillow warns.
        image = image.convert("RGBA")
    return image.convert("RGB")
