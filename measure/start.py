"""How long it takes to start: an import, a help text, the first descriptor.

    python measure/start.py
    python measure/start.py --backbone resnet18 --size 224 --rounds 5

Seconds of processes of their own, the least of several rounds: those of the processor,
which do not depend on what else runs, and those of a clock. The checkpoint is a network
of random weights, the photo a JPEG of 500 x 375. What is compiled in the first round is
kept for the others, as for any user; "anew" keeps nothing. Then where the time of the
first descriptor goes, in one process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from measure.arguments import at_least
from measure.commands import ROOT, environment
from measure.machine import print_machine
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.terminal import outlive_readers

# In a process of its own, which prints the seconds of each part; `sys.argv` has the
# checkpoint, the photo and the size.
PARTS = """
import sys, time
begun = time.process_time()
def part(name):
    global begun
    print(f"{name}\\t{time.process_time() - begun:.2f}", flush=True)
    begun = time.process_time()
from multigrain_jax import load_model
part("import")
from multigrain_jax.runtime import keep_compiled_programs
keep_compiled_programs()
from multigrain_jax.weights import find_weights
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.inference import LoadedModel
from multigrain_jax.opened_model import open_checkpoint
checkpoint = load_checkpoint(find_weights(sys.argv[1]), raw=False)
part("read and verify the checkpoint")
opened = open_checkpoint(checkpoint)
part("its network's structure")
model = LoadedModel(opened)
part("weights to the device")
size = int(sys.argv[3])
model.embed([sys.argv[2]], test_size=size)
part("first descriptor: trace, fetch the program, decode, run")
model.embed([sys.argv[2]], test_size=size)
part("second descriptor")
"""
FIRST = """
import sys
from multigrain_jax import load_model
model = load_model(sys.argv[1])
model.embed([sys.argv[2]], test_size=int(sys.argv[3]))
"""
EMBED_ANEW = """
import os, shutil, sys
shutil.rmtree(sys.argv[1], ignore_errors=True)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Seconds(NamedTuple):
    """Of a process: of the processor, and of a clock."""

    processor: float
    clock: float


def seconds_of(command: Sequence[str], variables: Mapping[str, str]) -> Seconds:
    """What a command takes, its own processes counted in.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    before, since = _children(), time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=variables,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Seconds(_children() - before, time.perf_counter() - since)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_row(
    name: str,
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    rounds: int,
    aim: float | None = None,
) -> None:
    """Print the least seconds of a command's rounds, after one that does not count."""
    seconds_of(command, variables)
    each = [seconds_of(command, variables) for _ in range(rounds)]
    least = Seconds(min(s.processor for s in each), min(s.clock for s in each))
    goal = "" if aim is None else f"{aim:g}"
    print(
        f"| {name} | {least.processor:.2f} | {least.clock:.2f} | {goal} |", flush=True
    )


def make_inputs(folder: Path, backbone: str) -> tuple[Path, Path]:
    """A checkpoint of random weights, and a folder with one photo."""
    _, variables = split_model(create_model(backbone, num_classes=1000, seed=0))
    meta = {"backbone": backbone, "num_classes": 1000, "config": None}
    store = CheckpointStore(folder / "weights")
    store.save(0, model=variables, meta={**meta, "class_names": []})
    store.close()
    photos = folder / "photos"
    photos.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
    image.save(photos / "one.jpg", quality=90)
    return folder / "weights", photos


def measure_start(rounds: int, variables: Mapping[str, str]) -> None:
    """Print the rows that need no network."""
    main, multigrain = ["-m", "multigrain_jax.main"], ["-m", "multigrain_jax"]
    for name, command, aim in (
        ("python alone", ["-c", ""], None),
        ("`import multigrain_jax`", ["-c", "import multigrain_jax"], 0.15),
        ("`python -m multigrain_jax.main --help`", [*main, "--help"], 0.4),
        (
            "the same with `--config configs/embed.py`",
            [*main, "--config", "configs/embed.py", "--help"],
            0.4,
        ),
        ("`multigrain --help`", [*multigrain, "--help"], 0.4),
        ("`multigrain embed --help`", [*multigrain, "embed", "--help"], 0.4),
    ):
        measure_row(name, command, variables, rounds=rounds, aim=aim)


def measure_first(
    folder: Path,
    size: int,
    variables: Mapping[str, str],
    *,
    backbone: str,
    rounds: int,
) -> None:
    """Print the rows of the first descriptor, and where its time goes."""
    checkpoint, photos = make_inputs(folder, backbone)
    arguments = [str(checkpoint), str(photos / "one.jpg"), str(size)]
    first = ["-c", FIRST, *arguments]
    kept = "`load_model(…).embed([photo])`, compiled before"
    measure_row(kept, first, variables, rounds=rounds, aim=3)
    anew = {**variables, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    measure_row("the same, compiled anew", first, anew, rounds=1)
    collection = folder / "embed"
    embed = ["-m", "multigrain_jax", "embed", str(photos), f"--init-from={checkpoint}"]
    embed += [f"--test-size={size}", "--test-mode=rect", f"--workdir={collection}"]
    # A folder that is complete is left as it is: each round makes its own.
    embed = ["-c", EMBED_ANEW, str(collection), *embed]
    measure_row("`multigrain embed` of one photo", embed, variables, rounds=rounds)
    search = ["-m", "multigrain_jax", "search", arguments[1], str(collection)]
    search += [f"--workdir={folder / 'search'}"]
    measure_row("`multigrain search` with it", search, variables, rounds=rounds)
    parts = subprocess.run(
        [sys.executable, "-c", PARTS, *arguments],
        cwd=ROOT,
        env=dict(variables),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    print("\n| part of the first descriptor | seconds of the processor |\n|---|---|")
    for line in parts:
        print("| {} | {} |".format(*line.split("\t")))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=at_least(1), default=500)
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax", "orbax-checkpoint", "grain"])
    print(
        f"{options.backbone}, {options.size} rect; least of {options.rounds}\n\n"
        "| what | seconds of the processor | of a clock | aim |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        variables = environment(ROOT, MULTIGRAIN_CACHE=str(folder / "cache"))
        variables.pop("JAX_COMPILATION_CACHE_DIR", None)
        measure_start(options.rounds, variables)
        measure_first(
            folder,
            options.size,
            variables,
            backbone=options.backbone,
            rounds=options.rounds,
        )


if __name__ == "__main__":
    outlive_readers()
    main()
