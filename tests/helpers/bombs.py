"""Small files that ask for much memory, each by what it says of its size."""

import struct
import zlib

from helpers.photos import encode, noise_photo

from multigrain_jax.data.mending import PNG_START, png_chunk

PHOTO = noise_photo(0, (64, 48), brightest=256)


def png_bomb(width, height, *, bits=8, colour=0):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        PNG_START
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND", b"")
    )


def webp_bomb(side, kind):
    if kind == b"VP8X":
        body = bytes(4) + 2 * (side - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        bits = (side - 1) | (side - 1) << 14
        body = b"\x2f" + struct.pack("<I", bits) + bytes(9)
    else:
        body = bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(9)
    chunk = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def gif_bomb(side):
    """A small screen, with a frame that reaches far beyond it."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0)
    return screen + frame + b"\x02\x02\x4c\x01\x00;"


def tiff_bomb(*, side=8, tile=None):
    """One strip, or one tile that is larger than the picture."""
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1}
    body = zlib.compress(bytes(1000))
    if tile is None:
        tags |= {273: 8, 278: side, 279: len(body)}
    else:
        tags |= {322: tile, 323: tile, 324: 8, 325: len(body)}
    body += bytes(len(body) % 2)
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    start = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    return start + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_bomb(width, height, *, progressive=False, channels_at_once=3):
    """A header, and nothing behind it but the end."""
    data = encode(PHOTO, "JPEG", progressive=progressive, subsampling=0)
    marker = b"\xff\xc2" if progressive else b"\xff\xc0"
    place = data.index(marker) + 5
    data = data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]
    scan = data.index(b"\xff\xda")
    if not progressive:
        channels = b"".join(bytes([1 + n, 0x11 if n else 0]) for n in range(3))
        body = (
            bytes([channels_at_once]) + channels[: 2 * channels_at_once] + b"\0\x3f\0"
        )
        head = b"\xff\xda" + struct.pack(">H", 2 + len(body)) + body
        return data[:scan] + head + bytes(50) + b"\xff\xd9"
    return data[: scan + 60] + b"\xff\xd9"


BOMBS = {
    "png": png_bomb(60_000, 60_000),
    "png of 16 bits": png_bomb(50_000, 50_000, bits=16, colour=6),
    "png one pixel high": png_bomb((1 << 31) - 1, 1),
    **{f"webp {k.decode()}": webp_bomb(16_383, k) for k in (b"VP8X", b"VP8L", b"VP8 ")},
    "gif": gif_bomb(65_535),
    "tiff": tiff_bomb(side=60_000),
    "tiff of one tile": tiff_bomb(tile=60_000),
    "progressive jpeg": jpeg_bomb(65_000, 65_000, progressive=True),
    "jpeg of separate channels": jpeg_bomb(65_000, 65_000, channels_at_once=1),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "bmp": encode(PHOTO, "BMP")[:18]
    + struct.pack("<ii", 60_000, 60_000)
    + encode(PHOTO, "BMP")[26:],
}
