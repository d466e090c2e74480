"""What an encoded file is, and how large: known before memory is taken for it."""

import contextlib
import importlib
import importlib.util
import re
import struct
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from itertools import chain
from typing import BinaryIO, cast

from PIL import (
    AvifImagePlugin,  # noqa: F401 - these register what reads their formats
    BmpImagePlugin,  # noqa: F401 - as above
    GifImagePlugin,  # noqa: F401 - as above
    Image,
    ImageFile,
    Jpeg2KImagePlugin,  # noqa: F401 - as above
    JpegImagePlugin,
    PngImagePlugin,  # noqa: F401 - as above
    PpmImagePlugin,  # noqa: F401 - as above
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401 - as above
)

from multigrain_jax.remedies import install

# Whatever a file is called, its content decides: some of Pillow's other readers start
# programs (EPS) or follow references.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp"),
    *(".dib", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm"),
)
# Formats that another package reads -> that package, its suffixes, and the extra.
EXTRAS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "HEIF": ("pillow_heif", (".heic", ".heif", ".hif"), "heif"),
}
PREFIX = 32  # bytes that tell a format, and the canvas of a WebP
# What Pillow's readers raise for a file of another format.
NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)

TILE_WIDTH, TILE_LENGTH, SAMPLES, BITS = 322, 323, 277, 258  # tags of a TIFF
COEFFICIENT_BYTES = 2  # of a JPEG whose parts come in several scans
JPEG2000_BYTES = 4  # a number of any of its channels
REDUCTIONS = (8, 4, 2)
# Of an opened JPEG and its size, the longer side that is enough.
Enough = Callable[[ImageFile.ImageFile, tuple[int, int]], int]
# Of a JPEG, before its pixels: depth maps of phones have some megabytes.
MAX_HEAD_BYTES = 64 << 20
MAX_EXIF_BYTES = 4 << 20
MAX_JUNK = 4096

# How files begin that are not read -> what they are, and what helps.
OTHER_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (
            rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)",
            f"a HEIC photo, which is read after {install('heif')}",
        ),
        (
            rb"\xff\x0a|....JXL \r\n\x87\n",
            "a JPEG XL image: save it as PNG",
        ),
        (rb"....ftypavi[fs]", "a damaged AVIF image"),
        (rb"....ftyp(crx |CRX )", "a camera's raw photo: export it as JPEG"),
        (rb"....ftyp", "a video: save pictures of it"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript, not an image file: save it as PNG"),
        (rb"%PDF", "a PDF document: save its pictures as PNG"),
        (rb"8BPS", "a Photoshop document: save it as PNG"),
        (rb"\s*(<\?xml[^>]*>\s*(<!.*>)?\s*)?<svg", "an SVG drawing: save it as PNG"),
        (rb"\s*<(!doctype|html|head|body|\?xml)", "a web page, not an image file"),
        (rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b", "an archive: unpack it"),
        (rb"\x00\x00\x01\x00", "an icon: save it as PNG"),
        (rb"\xff\xd8\xff", "a damaged JPEG file"),
        (rb"\x89PNG\r\n\x1a\n", "a damaged PNG file"),
        (rb"GIF8", "a damaged GIF file"),
        (rb"RIFF....WEBP", "a damaged WebP file"),
        (rb"II\*\0|MM\0\*", "a TIFF file that cannot be read, or a camera's raw photo"),
    )
)


class UndecodableImageError(ValueError):
    """The bytes are not an image that Pillow can decode whole."""


class UnknownFormatError(ValueError):
    """The bytes are of no format that is read."""


def image_suffixes() -> tuple[str, ...]:
    """The suffixes of files that are read here, with the packages that are there."""
    extra = [row[1] for name, row in EXTRAS.items() if _has_reader(name)]
    return SUFFIXES + tuple(suffix for suffixes in extra for suffix in suffixes)


def _has_reader(name: str) -> bool:
    package = EXTRAS[name][0]
    return importlib.util.find_spec(package) is not None


def kind_of(data: bytes) -> str:
    """What a file is that no reader knows, for people."""
    if not data:
        return "an empty file"
    for pattern, name in OTHER_KINDS:
        if pattern.match(data[:512].lower() if data[:1] in b"< \n\r\t" else data[:512]):
            return name
    return "not an image file"


_quiet_lock = threading.Lock()
_num_quiet = 0
_NO_WARNINGS = (
    "ignore",
    None,
    Warning,
    re.compile(r"(PIL|pillow_heif)\b"),
    0,
)


@contextlib.contextmanager
def quiet_pillow() -> Generator[None]:
    """No warning of Pillow's gets out of the context, in whatever thread.

    Files of strangers are odd in many ways that nobody can act on. `catch_warnings` is
    for one thread: it would put back what another one has found.
    """
    global _num_quiet
    filters = cast(list, warnings.filters)
    with _quiet_lock:
        if _NO_WARNINGS not in filters[:1]:
            filters.insert(0, _NO_WARNINGS)
        _num_quiet += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _num_quiet -= 1
            if not _num_quiet:
                filters = cast(list, warnings.filters)
                filters[:] = [entry for entry in filters if entry is not _NO_WARNINGS]


def open_image(
    file: BinaryIO, max_pixels: int, max_bytes: int, side: int | Enough | None
) -> ImageFile.ImageFile:
    """An image whose header is read, of a format and a size that are read.

    Args:
        file: the encoded bytes, from the first on.
        max_pixels: a larger photo is to be decoded at a fraction of its size.
        max_bytes: what decoding may take.
        side: the longer side that is enough of a JPEG; None: its whole size.

    Raises:
        UnknownFormatError: of no format that is read.
        UndecodableImageError: too large, and its format has no smaller size.
    """
    image = _of_its_format(file, max_pixels)
    if image.format == "JPEG2000":
        channels = 1 + len(image.getbands())  # and the picture itself
        max_pixels = min(max_pixels, max_bytes // (JPEG2000_BYTES * channels))
    _reduce(image, max_pixels, side)
    _require_size(reduced_size(image), max_pixels)
    taken = _bytes_taken(image)
    if taken > max_bytes:
        raise UndecodableImageError(
            f"{image.width}x{image.height} pixels, whose decoding takes {taken >> 20} "
            f"MiB, more than the limit of {max_bytes >> 20} MiB that follows from "
            "data.max_megapixels"
        )
    return image


def reduced_size(image: Image.Image) -> tuple[int, int]:
    """Width and height that an opened image will have when it is loaded."""
    width, height = image.size
    reduction = getattr(image, "_reduce", 0) if image.format == "JPEG2000" else 0
    half = (1 << reduction) >> 1
    return (width + half) >> reduction, (height + half) >> reduction


def _of_its_format(file: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    prefix = file.read(PREFIX)
    damaged: Exception | None = None
    # The others are looked for when it is none of the usual ones.
    for name in chain(FORMATS, filter(_register, EXTRAS)):
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) is not True:
            continue
        if name == "WEBP":
            # Its reader takes memory for the canvas when it is opened.
            _require_size(_webp_canvas(prefix), max_pixels)
        if name == "JPEG":
            _require_short_head(file)
        file.seek(0)
        try:
            # Not Image.open, which warns of large photos before they are reduced.
            return factory(file, "")
        except NOT_THIS_FORMAT as error:
            damaged = damaged or error
    file.seek(0)
    if damaged is not None and str(damaged):
        raise damaged
    raise UnknownFormatError


def _register(name: str) -> bool:
    """Let Pillow know a format that another package reads, if that is there."""
    if name in Image.OPEN:
        return True
    if not _has_reader(name):
        return False
    importlib.import_module(EXTRAS[name][0]).register_heif_opener()
    return name in Image.OPEN


def _require_short_head(file: BinaryIO) -> None:
    """Refuse a JPEG whose parts before its pixels would take minutes to be read.

    Pillow joins parts of EXIF data one by one, and looks at bytes between likewise.
    """
    exif = junk = 0
    place = file.seek(2)
    while exif <= MAX_EXIF_BYTES and junk <= MAX_JUNK and place <= MAX_HEAD_BYTES:
        start = file.read(4)
        if len(start) < 4 or start[:2] in (b"\xff\xda", b"\xff\xd9"):
            return  # its pixels, or its end
        if start[0] != 0xFF or start[1] in (0x00, 0xFF) or 0xD0 <= start[1] <= 0xD8:
            junk += 1
            place = file.seek(place + 1)
            continue
        length = int.from_bytes(start[2:])
        if start[1] == 0xE1 and file.read(4) == b"Exif":
            exif += length
        place = file.seek(place + 2 + length)
    raise UndecodableImageError(
        f"more than {MAX_HEAD_BYTES >> 20} MiB before its pixels, "
        f"{MAX_EXIF_BYTES >> 20} MiB of EXIF data or {MAX_JUNK} bytes between its "
        "parts: over the limit"
    )


def _webp_canvas(prefix: bytes) -> tuple[int, int]:
    kind, body = prefix[12:16], prefix[20:32]
    if kind == b"VP8X" and len(body) >= 10:
        return (
            1 + int.from_bytes(body[4:7], "little"),
            1 + int.from_bytes(body[7:10], "little"),
        )
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _reduce(
    image: ImageFile.ImageFile, max_pixels: int, side: int | Enough | None
) -> None:
    """Have an image decoded at the fraction of its size that is enough."""
    width, height = image.size
    least = 1
    while (
        least < REDUCTIONS[0] and -(-width // least) * -(-height // least) > max_pixels
    ):
        least *= 2
    wanted = least
    if side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        if not isinstance(side, int):
            side = side(image, (-(-width // least), -(-height // least)))
        fractions = (r for r in REDUCTIONS if max(width, height) // r >= side)
        wanted = max(least, next(fractions, 1))
    if wanted == 1:
        return
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft(None, (max(1, width // wanted), max(1, height // wanted)))
    elif image.format == "JPEG2000" and least > 1:
        # A property of the reader, which hides the method of that name.
        image.reduce = least.bit_length() - 1  # pyright: ignore[reportAttributeAccessIssue] - see above


def _require_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UndecodableImageError(
            f"{width}x{height} pixels, more than the limit of {max_pixels / 1e6:g} "
            "megapixels (data.max_megapixels)"
        )


def _bytes_taken(image: ImageFile.ImageFile) -> int:
    """What decoding takes where that is more than a few bytes for each pixel."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        tile = [_first(tags.get(tag, 0)) for tag in (TILE_WIDTH, TILE_LENGTH)]
        samples, bits = _first(tags.get(SAMPLES, 1)), _first(tags.get(BITS, 8))
        return tile[0] * tile[1] * samples * -(-bits // 8)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _in_several_scans(image):
        # The whole picture's coefficients, at its full size.
        width, height = _jpeg_size(image)
        return width * height * image.layers * COEFFICIENT_BYTES
    return 0


def _first(value: object) -> int:
    if isinstance(value, tuple):
        value = value[0] if value else 0
    return value if isinstance(value, int) else 0


def _jpeg_size(image: JpegImagePlugin.JpegImageFile) -> tuple[int, int]:
    scale = image.decoderconfig[0] if image.decoderconfig else 1
    return image.size[0] * scale, image.size[1] * scale


def _in_several_scans(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether a JPEG is progressive, or has its channels one after the other."""
    if image.info.get("progressive"):
        return True
    if (file := image.fp) is None:
        return False
    place = file.tell()
    try:
        # Pillow has stopped behind the header of the first scan.
        file.seek(0)
        head = file.read(place)
    finally:
        file.seek(place)
    start = head.rfind(b"\xff\xda")
    channels = head[start + 4 : start + 5]
    return start >= 0 and channels != bytes([image.layers])
