"""Training input on the host: the original's way in PyTorch, and this package's.

Both read the same JPEG files (500 x 375, quality 90, made from the quick start's
photos) and are timed in steady state, from one batch on the device to the next. The
original's way is written from its description: every augmented sample is decoded,
cropped, flipped, jittered, made a float tensor, lit and normalised by torchvision and
Pillow in a DataLoader. This package decodes an image once for its R samples and crops;
the device does the rest, which is not counted here (measure/step.py counts it).

The profile says what one sample costs in one thread, and the floor what can not be
saved: decoding / R + crop and resize (+ the policy). "pillow" and "simd" are what the
config's `crop_resize` can be; what is measured of them differs in nothing else.

With the extra `tf` the same photos are read through tf.data too.

    pip install -e '.[quickstart,benchmark,tf]'
    python measure/input.py
    python measure/input.py --workers 0 8 --batch-size 512 --seconds 20
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image, ImageOps

from measure.arguments import at_least, positive
from measure.input_profile import AREA_MIN, RESIZES, TRAIN_SIZE, Case, print_profile
from measure.machine import print_machine
from measure.pytorch_input import ReferenceSamples
from measure.tfdata_input import has_tensorflow, tfdata_batches, write_tfrecords
from multigrain_jax.data.decoding import PLAIN, decode
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.data.train_batches import make_train_batches
from multigrain_jax.terminal import outlive_readers

PACKAGES = ["torch", "torchvision", "tensorflow", "pillow", "cykooz-resizer", "numpy"]
PACKAGES += ["jax", "grain"]
PHOTO_SIZE = (500, 375)
PREFETCH = 4
TIMEOUT_S = 600.0
MANY_STEPS = 1_000_000


class Rate(NamedTuple):
    """Samples per second, and per second of processor time of all processes."""

    per_second: float
    per_core: float


def write_photos(folder: Path, count: int) -> FileSource:
    """Mosaics of four photos each, at their own resolution, as JPEG files."""
    photos = QuickstartSource("train")
    width, height = PHOTO_SIZE[0] // 2, PHOTO_SIZE[1] // 2 + 1
    files = []
    for number in range(count):
        mosaic = Image.new("RGB", PHOTO_SIZE)
        for part in range(4):
            encoded = photos.read((4 * number + part) % len(photos))
            photo = decode(encoded, PLAIN)
            place = (part % 2 * width, part // 2 * (height - 1))
            mosaic.paste(ImageOps.fit(photo, (width, height)), place)
        path = folder / f"{number}.jpg"
        mosaic.save(path, "JPEG", quality=90)
        files.append(ImageFile(str(path), 0))
    return FileSource(
        files,
        class_names=["photo"],
        decoding=PLAIN,
        local_cache_dir=None,
    )


def make_stream(source: FileSource, repeats: int, batch_size: int) -> RepeatedStream:
    """The order of samples, the same for both."""
    return RepeatedStream(
        num_images=len(source),
        num_repeats=repeats,
        epoch_len_factor=float(repeats),
        batch_size=batch_size,
        seed=0,
    )


def reference_batches(
    source: FileSource, case: Case, *, workers: int, batch_size: int
) -> Generator[object]:
    """The original's way: batches on the device."""
    import torch

    augmentation, repeats = case
    stream = make_stream(source, repeats, batch_size)
    on_gpu = torch.cuda.is_available()
    # As in PyTorch's workers; more threads lose time on tensors of this size.
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        ReferenceSamples(source, augmentation, TRAIN_SIZE),  # type: ignore[arg-type]  # has all that a Dataset needs
        batch_sampler=(stream.sample_ids(step).tolist() for step in range(MANY_STEPS)),
        num_workers=workers,
        # Forking beside JAX's threads could hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=on_gpu,
    )
    for images, labels in loader:
        if on_gpu:
            images, labels = images.cuda(), labels.cuda()
            torch.cuda.synchronize()
        yield images, labels


def own_batches(
    source: FileSource, case: Case, *, resize: str, workers: int, batch_size: int
) -> Generator[object]:
    """This package's way: batches on the device."""
    import jax

    from multigrain_jax.mesh import make_mesh, put_batch

    augmentation, repeats = case
    mesh = make_mesh()
    batches = make_train_batches(
        source,
        make_stream(source, repeats, batch_size),
        train_size=TRAIN_SIZE,
        augmentation=augmentation,
        crop_area_min=AREA_MIN,
        crop_resize=resize,
        seed=0,
        first_step=0,
        num_steps=MANY_STEPS,
        batch_slice=slice(0, batch_size),
        reading=Reading(workers, PREFETCH, TIMEOUT_S),
    )
    try:
        for batch in batches:
            arrays = {name: batch[name] for name in ("image", "label", "instance_id")}
            yield jax.block_until_ready(put_batch(mesh, arrays))
    finally:
        batches.close()


def processor_seconds() -> float:
    """Processor time of this process and of its living workers (theirs on Linux)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    total = used.ru_utime + used.ru_stime
    for worker in multiprocessing.active_children():
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            # After the name in brackets; user and system time are fields 14 and 15.
            fields = stat.read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(
    batches: Generator[object], *, batch_size: int, seconds: float, workers: int = 0
) -> Rate:
    """The rate once the batches that were made ahead at the start are used up."""
    # PyTorch's workers make two each ahead.
    ahead = max(2 * PREFETCH, 3 * workers)
    try:
        for _ in range(ahead):
            next(batches)
        started, used = time.perf_counter(), processor_seconds()
        for count in itertools.count(1):
            next(batches)
            elapsed = time.perf_counter() - started
            # A multiple of all workers' turns, so that none has a batch half done.
            if elapsed >= seconds and count % (os.cpu_count() or 1) == 0:
                break
        used = processor_seconds() - used
    finally:
        batches.close()
    return Rate(count * batch_size / elapsed, count * batch_size / used)


def check_devices() -> None:
    """Both ways must use the same device."""
    import jax
    import torch

    ours = jax.default_backend()
    theirs = "gpu" if torch.cuda.is_available() else "cpu"
    if ours != theirs:
        raise SystemExit(
            f"JAX runs on {ours}, PyTorch on {theirs}: install both for the same "
            "device, or set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= for a CPU"
        )


def print_rates(source: FileSource, case: Case, options: argparse.Namespace) -> None:
    """A row per number of workers, and what the best of each come to."""
    ways = {"original": reference_batches}
    for resize in RESIZES:
        ways[resize] = partial(own_batches, resize=resize)
    best = dict.fromkeys(ways, 0.0)
    for workers in dict.fromkeys(options.workers):
        rates = {}
        for name, make in ways.items():
            batches = make(source, case, workers=workers, batch_size=options.batch_size)
            rates[name] = measure(
                batches,
                batch_size=options.batch_size,
                seconds=options.seconds,
                workers=workers,
            )
            best[name] = max(best[name], rates[name].per_second)
        print(
            f"{case[0]:<5}{case[1]:>2}{workers:>8}"
            + columns(rate.per_second for rate in rates.values())
            + columns(rate.per_core for rate in rates.values()),
            flush=True,
        )
    print(f"{case[0]:<5}{case[1]:>2}{'best':>8}{columns(best.values())}", flush=True)


def columns(rates: Iterable[float]) -> str:
    """The rates, each but the first followed by its ratio to it."""
    original, *others = rates
    return f"{original:>10.0f}" + "".join(
        f"{rate:>8.0f}{rate / original:>7.2f}" for rate in others
    )


def print_tfdata(source: FileSource, options: argparse.Namespace) -> None:
    """The rates of data.backend = "tfdata", which does not know AutoAugment."""
    if not has_tensorflow():
        print("tf.data: not measured, TensorFlow is missing (pip install -e '.[tf]')")
        return
    with tempfile.TemporaryDirectory() as folder:
        records = write_tfrecords(source, Path(folder))
        for repeats in options.repeats:
            batches = tfdata_batches(
                records,
                repeats=repeats,
                batch_size=options.batch_size,
                train_size=TRAIN_SIZE,
                crop_area_min=AREA_MIN,
                num_steps=MANY_STEPS,
                prefetch=PREFETCH,
            )
            rate = measure(
                batches, batch_size=options.batch_size, seconds=options.seconds
            )
            print(
                f"full, R = {repeats}, TFRecord through tf.data: "
                f"{rate.per_second:.0f} images/s, {rate.per_core:.0f} per core-second",
                flush=True,
            )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Training input, two ways.")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=at_least(0), nargs="+", default=[0, 1, 2, cores]
    )
    parser.add_argument("--repeats", type=at_least(1), nargs="+", default=[1, 3])
    parser.add_argument("--augmentations", nargs="+", default=["full", "AA"])
    parser.add_argument("--batch-size", type=at_least(1), default=96)
    parser.add_argument("--num-photos", type=at_least(1), default=192)
    parser.add_argument("--seconds", type=positive, default=5.0)
    options = parser.parse_args(arguments)
    check_devices()
    print_machine(PACKAGES)
    cases = [(name, r) for name in options.augmentations for r in options.repeats]
    with tempfile.TemporaryDirectory() as folder:
        source = write_photos(Path(folder), options.num_photos)
        kept = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(
            f"{len(source)} photos of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]}, "
            f"{kept / len(source) / 1000:.0f} kB each; crops of {TRAIN_SIZE}, "
            f"batch {options.batch_size}"
        )
        heads = f"{'original':>10}" + "".join(
            f"{name:>8}{'ratio':>7}" for name in RESIZES
        )
        print(f"{'':<15}{'images/s':>{len(heads)}}{'per core-second':>{len(heads)}}")
        print(f"{'augm.':<5}{'R':>2}{'workers':>8}{heads}{heads}")
        for case in cases:
            print_rates(source, case, options)
        print_tfdata(source, options)
        print_profile(source, cases, options.batch_size)


if __name__ == "__main__":
    outlive_readers()
    main()
