"""Measure what interruptions and checkpoints cost.

    python measure/reliability.py --kills 10 --seconds 30

Prints the machine and three JSON objects: what a row of metrics costs the loop, what a
save costs at the size of a backbone's training state, and what is lost when a small run
is killed (SIGKILL) again and again.
"""

import argparse
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from PIL import Image

from measure.arguments import at_least, positive
from measure.machine import print_machine
from multigrain_jax.checkpoint import (
    CheckpointStore,
    checkpoint_steps,
    load_checkpoint,
    load_optimizer,
)
from multigrain_jax.metric_writer import MetricWriter, read_metrics
from multigrain_jax.models.multigrain import create_model
from multigrain_jax.terminal import outlive_readers
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import (
    checkpoint_model,
    create_state,
    split_for_training,
)
from multigrain_jax.trees import leaf_digests, tree_to_nested

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZE = 48
SETTINGS = {
    "backbone": "tiny",
    "data.source": "folder",
    "data.val_split": "",
    "batch_size": BATCH_SIZE,
    "train_size": 64,
    "num_epochs": 100_000,
    "log_every_steps": 1,  # to know which step was the last
    "learning_rate": 0.01,
}


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_saves(backbone: str, repetitions: int = 3) -> dict[str, float]:
    """What saving, digests and loading cost; medians."""
    model = create_model(backbone, num_classes=1000)
    _, _, variables = split_for_training(model)
    state = create_state(variables, make_optimizer(0.1, momentum=0.9, weight_decay=0.0))
    # The zeros of a fresh optimiser would be compressed to nothing.
    key = jax.random.key(0)
    optimizer = jax.tree.map(
        lambda x: jax.random.normal(key, x.shape) if x.ndim else x, state.opt_state
    )
    items = [tree_to_nested(checkpoint_model(state)), tree_to_nested(optimizer)]
    digests = [
        seconds_of(lambda: [leaf_digests(item) for item in items])
        for _ in range(repetitions)
    ]
    stalls, writes, loads = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(folder)
        for step in range(1, repetitions + 1):
            started = time.perf_counter()
            store.save(
                step,
                model=checkpoint_model(state),
                optimizer=optimizer,
                meta={"backbone": backbone},
            )
            stalls.append(time.perf_counter() - started)
            store.wait()
            writes.append(time.perf_counter() - started)
            loads.append(
                seconds_of(
                    lambda: load_optimizer(
                        load_checkpoint(folder), like=state.opt_state
                    )
                )
            )
        store.close()
        newest = Path(folder) / "checkpoints" / str(repetitions)
        size = sum(p.stat().st_size for p in newest.rglob("*") if p.is_file())
    return {
        "checkpoint_megabytes": size / 1e6,
        "save_stall_ms": 1000 * statistics.median(stalls),
        "save_to_disk_ms": 1000 * statistics.median(writes),
        "digests_ms": 1000 * statistics.median(digests),
        "load_and_verify_ms": 1000 * statistics.median(loads),
    }


def measure_metrics(rows: int = 2000) -> dict[str, float]:
    """What a row of metrics costs the loop: its thread's time of the processor."""
    metrics = {f"train/{number}": float(number) for number in range(12)}
    walls = []
    with tempfile.TemporaryDirectory() as folder:
        writer = MetricWriter(Path(folder))
        began = time.thread_time()
        for step in range(rows):
            walls.append(seconds_of(partial(writer.record, step, metrics)))
        taken = time.thread_time() - began
        writer.close()
    return {
        "metrics_row_cpu_ms": 1000 * taken / rows,
        "metrics_row_median_ms": 1000 * statistics.median(walls),
        "metrics_row_longest_ms": 1000 * max(walls),
    }


def make_photos(root: Path, count: int = 240) -> None:
    """Noise in three classes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / "train" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def start(root: Path, workdir: Path) -> subprocess.Popen[bytes]:
    """A training run as a user starts it."""
    settings = SETTINGS | {"data.root": root}
    command = [sys.executable, "-m", "multigrain_jax.main"]
    command += ["--config", "configs/base.py", "--workdir", str(workdir)]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    with (workdir / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def measure_kills(kills: int, seconds: float) -> dict[str, float]:
    """What kills cost a run; the last start is ended by a signal."""
    rng = random.Random(0)
    lost = []
    with tempfile.TemporaryDirectory() as folder:
        root, workdir = Path(folder) / "photos", Path(folder) / "run"
        make_photos(root)
        workdir.mkdir()
        started = time.perf_counter()
        for _ in range(kills):
            process = start(root, workdir)
            time.sleep(rng.uniform(0.5, 1.5) * seconds)
            if process.poll() is not None:
                raise SystemExit((workdir / "log.txt").read_text()[-3000:])
            process.kill()
            process.wait()
            rows = read_metrics(workdir / "metrics.jsonl")
            saved = max(checkpoint_steps(workdir / "checkpoints"), default=0)
            lost.append(max(0, max((r["step"] for r in rows), default=0) - saved))
        process = start(root, workdir)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        wall = time.perf_counter() - started
        log = (workdir / "log.txt").read_text()
        if code != 3:
            raise SystemExit(f"the run ended with code {code}\n{log[-3000:]}")
        rows = read_metrics(workdir / "metrics.jsonl")
        kept = max(checkpoint_steps(workdir / "checkpoints"))
    rates = [row["train/images_per_second"] for row in rows]
    step_seconds = BATCH_SIZE / statistics.median(rates)
    firsts = [float(s) for s in re.findall(r"first step after ([\d.]+) s", log)]
    return {
        "kills": kills,
        "seconds_between_kills": seconds,
        "steps_per_checkpoint": -(-480 // BATCH_SIZE),
        "steps_lost_per_kill": statistics.mean(lost),
        "step_ms": 1000 * step_seconds,
        "restart_to_first_step_s": statistics.median(firsts[1:]),
        "first_start_to_first_step_s": firsts[0],
        "steps_kept": kept,
        "wall_s": wall,
        "goodput": kept * step_seconds / wall,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50", help="size of the saves")
    parser.add_argument("--kills", type=at_least(0), default=10)
    parser.add_argument("--seconds", type=positive, default=30.0, help="between kills")
    options = parser.parse_args(arguments)
    print_machine(["jax", "flax", "orbax-checkpoint"])
    print_figures(measure_metrics())
    print_figures(measure_saves(options.backbone))
    if options.kills:
        print_figures(measure_kills(options.kills, options.seconds))


def print_figures(figures: dict[str, float]) -> None:
    """As JSON, with three decimals."""
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps(rounded, indent=2), flush=True)


if __name__ == "__main__":
    outlive_readers()
    main()
