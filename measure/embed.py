"""Descriptors on a CPU: images per second by ours and by what one would pick instead.

    python measure/embed.py
    python measure/embed.py --backbone resnet18 --test-size 224
    python measure/embed.py --backbone nasnetamobile
    python measure/embed.py --test-size 500 --test-mode rect --batch-size 1
    taskset -c 0 python measure/embed.py --processor-time  # where others are at work

The same fresh weights, with batch norms folded, for `load_model` by JAX (large JPEGs at
a fraction of their size, and whole) and by its `engine="onnxruntime"`, and for PyTorch
(channels last; compiled with frozen weights), ONNX Runtime and OpenVINO with a ResNet
as one would write it for them: from decoded arrays, from JPEGs of 500 x 375, and from
JPEGs of 12 megapixels. Ours reads files by `LoadedModel.embed`; the others by Pillow,
in as many threads as there are cores. Each runs in a process of its own, whose start is
counted up to the first descriptor. Needs the extra `benchmark`; what is not installed
is left out, and said so.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from measure.arguments import at_least
from measure.embed_engines import (
    Engine,
    Weights,
    num_cores,
    onnxruntime,
    openvino,
    pytorch,
    write_onnx,
)
from multigrain_jax.terminal import outlive_readers

WEIGHTS, ONNX, CHECKPOINT = "weights.npz", "network.onnx", "model"
RESNETS = ("resnet18", "resnet34", "resnet50")
PHOTOS = {"500 x 375": (500, 375), "12 megapixels": (4000, 3000)}
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
CUBIC = Image.Resampling.BICUBIC
TOLERANCE = 1e-4
# How it is named -> the engine of `load_model`, and how JPEGs are decoded.
OURS = {
    "ours": ("jax", "fast"),
    "ours, JPEGs whole": ("jax", "exact"),
    "ours, ONNX Runtime": ("onnxruntime", "fast"),
}
EmbedFiles = Callable[[Sequence[Path]], object]
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "pytorch": lambda place: pytorch(_weights(place), compiled=False),
    "pytorch compiled": lambda place: pytorch(_weights(place), compiled=True),
    "onnxruntime": lambda place: onnxruntime(place / ONNX),
    "openvino": lambda place: openvino(place / ONNX),
}


def _weights(place: Path) -> Weights:
    with np.load(place / WEIGHTS) as file:
        return dict(file)


def named_arrays(tree: Mapping[str, Any], name: str = "") -> dict[str, np.ndarray]:
    """Nested arrays as the engines take them: by path, kernels in PyTorch's order."""
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= named_arrays(value, f"{name}{key}/")
        else:
            array = np.asarray(value)
            found[name + key] = (
                array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            )
    return found


def prepare(place: Path, backbone: str, num_photos: int) -> None:
    """Write weights in every form, and photos that are smooth with some noise."""
    from measure.backbones import with_statistics
    from multigrain_jax.checkpoint import CheckpointStore
    from multigrain_jax.models.folding import fold_batch_norms
    from multigrain_jax.models.multigrain import create_model

    model = create_model(backbone, num_classes=0)
    graphdef, variables = with_statistics(model)
    store = CheckpointStore(place / CHECKPOINT)
    meta = {"backbone": backbone, "num_classes": 0, "class_names": []}
    store.save(0, model=variables, meta={**meta, "config": None})
    store.close()
    _write_photos(place, num_photos, np.random.default_rng(0))
    if backbone not in RESNETS:
        return
    trunk = fold_batch_norms(graphdef, variables)[1].params["trunk"]
    weights = named_arrays(trunk)
    np.savez(place / WEIGHTS, allow_pickle=False, **weights)
    try:
        write_onnx(weights, place / ONNX)
    except ImportError:
        print("onnx is not installed: pip install -e '.[benchmark]'")


def _write_photos(place: Path, num_photos: int, rng: np.random.Generator) -> None:
    for name, (width, height) in PHOTOS.items():
        (place / name).mkdir()
        for number in range(num_photos):
            small = rng.integers(0, 256, (12, 16, 3), np.uint8)
            smooth = Image.fromarray(small).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            noise = rng.normal(0, 6, (height, width, 1)).astype(np.float32)
            pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.jpg", quality=90)


def read(path: Path, *, size: int, mode: str) -> np.ndarray:
    """A photo by Pillow alone, as torchvision's transforms would give it."""
    with Image.open(io.BytesIO(path.read_bytes())) as photo:
        image = photo.convert("RGB")
    side = size * 256 // 224 if mode == "square" else size
    width, height = image.size
    reach = min(width, height) if mode == "square" else max(width, height)
    shape = (round(width * side / reach), round(height * side / reach))
    image = image.resize(shape, CUBIC)
    if mode == "square":
        left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return (np.asarray(image, np.float32) / 255 - MEAN) / STD


def batches(images: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Images of one shape, as whole batches."""
    waiting = []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch_size:
            yield np.stack(waiting)
            waiting = []


def best_rate(
    run: Callable[[], object],
    count: int,
    repeats: int,
    clock: Callable[[], float],
) -> float:
    """Images per second of the best of several runs."""
    seconds = []
    for _ in range(repeats):
        started = clock()
        run()
        seconds.append(clock() - started)
    return count / min(seconds)


def _ours(options: argparse.Namespace) -> tuple[Engine, EmbedFiles]:
    from multigrain_jax.inference import load_model

    engine, decode = OURS[options.engine]
    model = load_model(options.place / CHECKPOINT, engine=engine)
    embed_files = partial(
        model.embed,
        test_size=options.test_size,
        mode=options.test_mode,
        decode=decode,
        batch_size=options.batch_size,
    )
    return lambda images: np.asarray(model(images).normalized_embedding), embed_files


def _other(options: argparse.Namespace) -> tuple[Engine, EmbedFiles]:
    engine = ENGINES[options.engine](options.place)
    load = partial(read, size=options.test_size, mode=options.test_mode)

    def embed_files(paths: Sequence[Path]) -> None:
        with ThreadPoolExecutor(num_cores()) as pool:
            for batch in batches(pool.map(load, paths), options.batch_size):
                engine(batch)

    return engine, embed_files


def run_engine(options: argparse.Namespace) -> None:
    """Measure one engine in this process, and print a line of JSON."""
    place = options.place
    images = np.load(place / "images.npy")
    is_ours = options.engine in OURS
    engine, embed_files = _ours(options) if is_ours else _other(options)
    engine(images[:1])
    found = {"first": time.time() - options.started}
    parts = list(batches(iter(images), options.batch_size))
    np.save(place / f"{options.engine}.npy", np.concatenate([engine(p) for p in parts]))
    clock = time.process_time if options.processor_time else time.perf_counter
    rate = partial(best_rate, repeats=options.repeats, clock=clock)
    found["arrays"] = rate(lambda: [engine(p) for p in parts], len(images))
    for name in PHOTOS:
        paths = sorted((place / name).glob("*.jpg"))
        embed_files(paths)  # compiles
        found[name] = rate(partial(embed_files, paths), len(paths))
    print(json.dumps(found))


def run_all(options: argparse.Namespace, place: Path) -> None:
    """Every engine in turn; a row of the table for each."""
    from measure.backbones import are_alike

    count = max(options.num_photos // options.batch_size, 1) * options.batch_size
    prepare(place, options.backbone, count)
    size = options.test_size
    shape = (size, size) if options.test_mode == "square" else (size * 3 // 4, size)
    images = np.random.default_rng(1).standard_normal((count, *shape, 3), np.float32)
    np.save(place / "images.npy", images)
    columns = ("first", "arrays", *PHOTOS)
    print(
        f"{options.backbone}, {options.test_mode} {size}, batches of "
        f"{options.batch_size}, {count} images; seconds to the first descriptor, and "
        f"images/s{' of the processor' if options.processor_time else ''}"
    )
    print(f"{'':<18}" + "".join(f"{c:>15}" for c in columns) + f"{'difference':>12}")
    others = () if options.ours or options.backbone not in RESNETS else ENGINES
    for name in (*OURS, *others):
        command = [sys.executable, __file__, *sys.argv[1:], "--engine", name]
        command += ["--place", str(place), "--started", str(time.time())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            print(f"{name:<18}not run: {reason}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        own, other = (np.load(place / f"{each}.npy") for each in ("ours", name))
        difference = np.abs(own - other).max()
        cells = "".join(f"{found[column]:>15.1f}" for column in columns)
        mark = "" if difference < TOLERANCE else f"  above {TOLERANCE:g}"
        if are_alike(own):
            mark = "  of images that are all alike, which says nothing"
        print(f"{name:<18}{cells}{difference:>12.1e}{mark}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--backbone", default="resnet50", help=f"the others know {', '.join(RESNETS)}"
    )
    parser.add_argument("--test-size", type=at_least(1), default=224)
    parser.add_argument("--test-mode", default="square", choices=["square", "rect"])
    parser.add_argument("--batch-size", type=at_least(1), default=4)
    parser.add_argument("--num-photos", type=at_least(1), default=32)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    parser.add_argument(
        "--processor-time", action="store_true", help="rates per second of the CPU"
    )
    parser.add_argument("--ours", action="store_true", help="leave the others out")
    parser.add_argument("--engine", choices=[*OURS, *ENGINES], help="by the script")
    parser.add_argument("--place", type=Path, help="by the script")
    parser.add_argument("--started", type=float, help="by the script")
    options = parser.parse_args(arguments)
    if options.engine:
        run_engine(options)
        return
    from measure.machine import print_machine

    print_machine(["jax", "numpy", "pillow", "torch", "onnxruntime", "openvino"])
    from multigrain_jax.errors import InputError

    with tempfile.TemporaryDirectory() as place:
        try:
            run_all(options, Path(place))
        except InputError as error:
            parser.error(str(error))


if __name__ == "__main__":
    outlive_readers()
    main()
