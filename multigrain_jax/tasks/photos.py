"""The keys that say which files are photos and how they become pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageColor

from multigrain_jax.data.decoding import (
    DEPTHS,
    PIXELS,
    SPEEDS,
    Decoding,
    decoding_of_record,
)
from multigrain_jax.descriptors.folder import DescriptorSettings
from multigrain_jax.errors import InputError

AUTO = "auto"
CHOICES = {"decoding": (AUTO, *PIXELS), "depth": DEPTHS, "decode": (AUTO, *SPEEDS)}


def decoding_from_config(data: Mapping[str, Any], *, own_photos: bool) -> Decoding:
    """How photos become pixels, by the keys of `data` that all configurations share.

    Args:
        data: that part of the configuration.
        own_photos: what "auto" stands for: "viewer" and "fast" for photos of one's own,
            "plain" and "exact" for data sets on which published numbers are to be
            reproduced.
    """
    pixels = data["decoding"]
    if pixels == AUTO:
        pixels = "viewer" if own_photos else "plain"
    # Runs of before had no such key in training: crops were from whole photos.
    speed = data.get("decode", "exact")
    return Decoding(
        pixels=pixels,
        background=background_colour(data["background"]),
        depth=data["depth"],
        max_megapixels=float(data["max_megapixels"]),
        fast=own_photos if speed == AUTO else speed == "fast",
    )


def background_colour(name: str) -> tuple[int, int, int]:
    """A colour by its name or as "#rrggbb"; ValueError for what is none."""
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def recorded_settings(
    settings: DescriptorSettings,
    decoding: Decoding,
    *,
    before: DescriptorSettings | None,
) -> DescriptorSettings:
    """Settings of descriptors with a record of how photos become pixels.

    Args:
        settings: the others.
        decoding: of this run.
        before: of the folder that the run goes on with, which may be older than such
            records. Then there is none in it from now on either, unless photos become
            pixels in a way that it cannot have known.
    """
    is_older = before is not None and before.decoding is None
    if is_older and decoding.pixels != "viewer" and not decoding.fast:
        return settings
    return settings._replace(decoding=decoding.record())


def decoding_of_database(
    settings: DescriptorSettings, *, max_megapixels: float, database: Path
) -> Decoding:
    """How the photos of a collection became pixels, as queries of it are to.

    Args:
        settings: of its descriptors.
        max_megapixels: of a query.
        database: where it is, for an error.

    Raises:
        InputError: its record says what this program does not know.
    """
    record = "upright" if settings.decoding is None else settings.decoding
    try:
        return decoding_of_record(record, max_megapixels=max_megapixels)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{database}: its photos were decoded as {record!r}, which this version "
            "does not know; search with the version that embedded them"
        ) from error


def photo_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with those keys of `data` that this module reads."""
    problems = [
        f"data.{key}: found {data[key]!r}, expected one of {', '.join(allowed)}"
        for key, allowed in CHOICES.items()
        if key in data and data[key] not in allowed
    ]
    if "background" in data:
        try:
            background_colour(data["background"])
        except (ValueError, AttributeError, TypeError):
            problems.append(
                f"data.background: found {data['background']!r}, expected a colour "
                "such as white or #ffffff"
            )
    exclude = data.get("exclude", ())
    is_list = isinstance(exclude, (list, tuple))
    if not is_list or not all(isinstance(name, str) and name for name in exclude):
        problems.append(
            f"data.exclude: found {exclude!r}, expected patterns of names such as "
            """--config.data.exclude="('.*', 'private')", or () for none"""
        )
    return problems
