"""Colour profiles made of numbers, and what their colours are, by plain formulas."""

import struct

import numpy as np

# Primaries as XYZ columns, adapted to D50 (Bradford), as profiles state them.
SRGB = np.array(
    [
        [0.43607, 0.38515, 0.14307],
        [0.22249, 0.71687, 0.06061],
        [0.01392, 0.09708, 0.71410],
    ]
)
DISPLAY_P3 = np.array(
    [
        [0.51512, 0.29198, 0.15710],
        [0.24120, 0.69225, 0.06657],
        [-0.00105, 0.04189, 0.78407],
    ]
)
ADOBE_RGB = np.array(
    [
        [0.60974, 0.20528, 0.14919],
        [0.31111, 0.62567, 0.06322],
        [0.01947, 0.06087, 0.74457],
    ]
)
WHITE_D50 = np.array([0.96420, 1.0, 0.82491])
COLUMNS = (b"rXYZ", b"gXYZ", b"bXYZ")
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
GAMMA_CURVE = (563 / 256, 1.0, 0.0, 0.0, 0.0)
PROFILES = {
    "sRGB": (SRGB, SRGB_CURVE),
    "Display P3": (DISPLAY_P3, SRGB_CURVE),
    "Adobe RGB": (ADOBE_RGB, GAMMA_CURVE),
}


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc_profile(name: str) -> bytes:
    """A profile of matrix and curve, one of `PROFILES`, as version 4 writes it."""
    matrix, curve = PROFILES[name]
    text = name.encode("utf-16-be")
    description = b"mluc" + struct.pack(
        ">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28
    )
    curve_tag = b"para" + struct.pack(">IHH", 0, 3, 0) + b"".join(map(_fixed, curve))
    tags = {b"desc": description + text, b"cprt": description + text}
    points = {b"wtpt": WHITE_D50, **dict(zip(COLUMNS, matrix.T, strict=True))}
    for tag, point in points.items():
        tags[tag] = b"XYZ " + bytes(4) + b"".join(map(_fixed, point))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve_tag)
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", 0, bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += b"".join(map(_fixed, WHITE_D50)) + bytes(48)
    whole = header + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def to_srgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """uint8 [..., 3] of a profile as sRGB: float64 in [0, 255], by plain formulas."""
    matrix, (gamma, a, b, c, edge) = PROFILES[name]
    values = pixels / 255
    linear = np.where(values >= edge, (a * values + b) ** gamma, c * values)
    srgb = np.clip(linear @ matrix.T @ np.linalg.inv(SRGB).T, 0, 1)
    encoded = np.where(
        srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055
    )
    return 255 * encoded


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIE76 between sRGB colours in [0, 255]."""
    labs = []
    for colours in (one, other):
        values = np.asarray(colours, np.float64) / 255
        linear = np.where(
            values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
        )
        x, y, z = np.moveaxis(linear @ SRGB.T / WHITE_D50, -1, 0)
        fx, fy, fz = (
            np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
            for t in (x, y, z)
        )
        labs.append(np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1))
    return np.linalg.norm(labs[0] - labs[1], axis=-1)
