"""What decoding large JPEGs at a fraction of their size saves, and what it changes.

    python measure/decode.py
    python measure/decode.py --checkpoint workdirs/quickstart --photos ~/photos

Milliseconds of one thread for a synthetic photo of 12 megapixels, from its bytes to
what the network is shown, exact and fast in turns; the differences of pixels; the peak
memory for a photo of 100 megapixels. The same for training: crops per core-second of
batches of such photos, in one thread. With a checkpoint and a folder of photos also the
cosine of the descriptors of both, and how many nearest neighbours stay.
"""

import argparse
import dataclasses
import io
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.network_image import network_image
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.simd_resize import resolve_crop_resize
from multigrain_jax.data.sources.folder import ImageFile, index_folder
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve
from multigrain_jax.data.train_batches import make_train_batches
from multigrain_jax.inference import load_model
from multigrain_jax.models.backbones import BACKBONES
from multigrain_jax.ops.color import normalize_pixels_on_host
from multigrain_jax.terminal import outlive_readers

WAYS = {"exact": VIEWER, "fast": dataclasses.replace(VIEWER, fast=True)}
TWELVE_MEGAPIXELS = (4032, 3024)
HUNDRED_MEGAPIXELS = (11648, 8736)
SIZES = ((224, "square"), (500, "rect"))
TRAIN_SIZE, PHOTOS = 224, 16


def photo(size: tuple[int, int]) -> bytes:
    """A JPEG with detail of all sizes: about as many bytes as a phone's."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (size[1] // 64, size[0] // 64, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    fine = Image.effect_noise(size, 12.0).convert("RGB")
    encoded = io.BytesIO()
    Image.blend(image, fine, 0.15).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def times(data: bytes, *, test_size: int, mode: str, rounds: int) -> None:
    """Print a line: the best times of both ways, in turns, and the differences."""
    best, shown = dict.fromkeys(WAYS, float("inf")), {}
    for _ in range(rounds):
        for way, decoding in WAYS.items():
            since = time.perf_counter()
            image = network_image(
                data, decoding, test_size=test_size, mode=mode, smallest_side=32
            ).image
            best[way] = min(best[way], time.perf_counter() - since)
            shown[way] = np.asarray(image, int)
    difference = np.abs(shown["exact"] - shown["fast"])
    print(
        f"| {test_size} {mode} | {1e3 * best['exact']:.0f} ms | "
        f"{1e3 * best['fast']:.0f} ms | {best['exact'] / best['fast']:.1f} | "
        f"{difference.max()}, {difference.mean():.2f} |"
    )


def training(folder: Path, data: bytes, *, num_repeats: int, rounds: int) -> None:
    """Print a line: training crops of such photos a second, of both ways in turns."""
    paths = [folder / f"{number}.jpg" for number in range(PHOTOS)]
    for path in paths:
        path.write_bytes(data)
    batch_size = PHOTOS * num_repeats
    best, shown = dict.fromkeys(WAYS, float("inf")), {}
    for _ in range(rounds):
        for way, decoding in WAYS.items():
            source = FileSource(
                [ImageFile(str(path), 0) for path in paths],
                class_names=["photo"],
                decoding=decoding,
                local_cache_dir=None,
            )
            stream = RepeatedStream(
                num_images=PHOTOS,
                num_repeats=num_repeats,
                epoch_len_factor=float(num_repeats),
                batch_size=batch_size,
                seed=0,
            )
            since = time.process_time()
            (batch,) = make_train_batches(
                source,
                stream,
                train_size=TRAIN_SIZE,
                augmentation="full",
                crop_area_min=0.08,
                crop_resize=resolve_crop_resize("auto"),
                seed=0,
                first_step=0,
                num_steps=1,
                batch_slice=slice(0, batch_size),
                reading=Reading(num_workers=0, prefetch=1, timeout_s=600.0),
            )
            best[way] = min(best[way], time.process_time() - since)
            shown[way] = np.asarray(batch["image"], int)
    rate = {way: batch_size / seconds for way, seconds in best.items()}
    difference = np.abs(shown["exact"] - shown["fast"])
    print(
        f"| {TRAIN_SIZE}, R = {num_repeats} | {rate['exact']:.1f} | "
        f"{rate['fast']:.1f} | {rate['fast'] / rate['exact']:.1f} | "
        f"{difference.max()}, {difference.mean():.2f} |"
    )


def peak_memory(way: str) -> str:
    """What a process takes at most that decodes 100 megapixels, in MiB."""
    code = (
        "import sys; import measure.decode as m\n"
        "data = sys.stdin.buffer.read()\n"
        f"m.network_image(data, m.WAYS[{way!r}], test_size=224, mode='square', "
        "smallest_side=32)\n"
        # Of this program alone; `getrusage` begins with what started it.
        "status = open('/proc/self/status').read()\n"
        "print(int(status.partition('VmHWM:')[2].split()[0]) >> 10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=photo(HUNDRED_MEGAPIXELS),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def descriptors(checkpoint: Path, folder: Path, *, test_size: int, most: int) -> None:
    """Print how near the descriptors of both ways are, and what finds what."""
    model = load_model(checkpoint)
    row = BACKBONES[model.backbone]
    sieve = Sieve(DEFAULT_EXCLUDE, "skip")
    files, _ = index_folder(folder, split=None, sieve=sieve, instances=None)
    paths = [file.path for file in files[:: max(1, len(files) // most)]]
    made = {way: [] for way in WAYS}
    reduced = 0
    show = partial(
        network_image, test_size=test_size, mode="rect", smallest_side=row.smallest_side
    )
    for path in paths:
        data = Path(path).read_bytes()
        shown = {way: np.asarray(show(data, each).image) for way, each in WAYS.items()}
        reduced += not np.array_equal(shown["exact"], shown["fast"])
        for way, pixels in shown.items():
            image = normalize_pixels_on_host(pixels, row.mean, row.std)
            made[way].append(np.asarray(model(image[None]).normalized_embedding[0]))
    exact, fast = (np.stack(made[way]) for way in WAYS)
    cosines = np.sum(exact * fast, axis=1)
    nearest = []
    for vectors in (exact, fast):
        similar = vectors @ exact.T
        np.fill_diagonal(similar, -2)
        nearest.append(similar.argmax(axis=1))
    kept = np.mean(nearest[0] == nearest[1])
    print(
        f"{len(paths)} photos at {test_size}, {reduced} of them decoded at a fraction: "
        f"cosine of fast and exact least {cosines.min():.5f}, mean "
        f"{cosines.mean():.5f}; nearest photo the same for {100 * kept:.1f} %"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--size", type=at_least(1), default=224)
    parser.add_argument("--most", type=at_least(1), default=300)
    options = parser.parse_args(arguments)
    print_machine(["pillow", "jax"])
    data = photo(TWELVE_MEGAPIXELS)
    print(f"a JPEG of 12 megapixels, {len(data) / 1e6:.1f} MB, one thread, best of")
    print(
        f"{options.rounds} in turns:\n\n| network | exact | fast | ratio | largest "
        "and mean difference of 255 |\n|---|---|---|---|---|"
    )
    for test_size, mode in SIZES:
        times(data, test_size=test_size, mode=mode, rounds=options.rounds)
    print(
        "\n| training | exact, crops per core-second | fast | ratio | largest and mean "
        "difference of 255 |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for num_repeats in (1, 3):
            training(Path(folder), data, num_repeats=num_repeats, rounds=options.rounds)
    taken = ", ".join(f"{way} {peak_memory(way)} MiB" for way in WAYS)
    print(f"\npeak memory of a process that decodes 100 megapixels: {taken}")
    if options.checkpoint and options.photos:
        descriptors(
            options.checkpoint,
            options.photos,
            test_size=options.size,
            most=options.most,
        )


if __name__ == "__main__":
    outlive_readers()
    main()
