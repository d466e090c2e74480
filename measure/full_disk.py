"""A disk that is full for seconds under a training that writes at every step.

    python measure/full_disk.py --tries 10 --seconds 4

By root on Linux: small file systems are mounted. The real command trains the smallest
network with two reading processes, logs and writes TensorBoard's events at every step,
validates and saves at every epoch; at a random step its disk is filled and kept full.
One JSON object for each file system: how the tries ended, compared with a run on a disk
that was never full. Another version's clone is tried with --clone.
"""

import argparse
import errno
import json
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.arguments import at_least, positive
from measure.commands import (
    ROOT,
    TRAINING,
    command_line,
    environment,
    small_disk,
    write_photos,
)
from measure.machine import print_machine
from multigrain_jax.checkpoint import describe_checkpoint
from multigrain_jax.terminal import outlive_readers

KINDS = ("tmpfs", "ext4")
DISK_BYTES = 24 << 20
# Twenty steps an epoch; each validation starts processes, which takes its time.
LENGTH = {
    "epoch_len_factor": 10.0,
    "num_epochs": 16,
    "eval_every_epochs": 8,
    "validate_first": False,
}
# Much longer than an undisturbed run: what takes as long hangs.
HANGS_S = 240.0
TIMINGS = ("train/images_per_second", "train/data_wait_fraction")


def start(clone: Path, photos: Path, workdir: Path, log: Path) -> subprocess.Popen[str]:
    """A training as a user starts it, its output in a file."""
    settings = {**TRAINING, **LENGTH, "data.root": photos}
    with log.open("w") as file:
        return subprocess.Popen(
            command_line("base", workdir, settings),
            cwd=clone,
            env=environment(clone),
            stdout=file,
            stderr=file,
            text=True,
            start_new_session=True,
        )


def keep_full(path: Path, seconds: float) -> None:
    """Take every byte that a disk has for a while, then give all of it back."""
    end = time.monotonic() + seconds
    with path.open("wb", buffering=0) as file:
        piece = bytes(1 << 20)
        while time.monotonic() < end:
            try:
                file.write(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                # Smaller and smaller, so that no gap is left; then look again.
                piece = piece[: max(1, len(piece) // 2)]
                if len(piece) == 1:
                    time.sleep(0.005)
    path.unlink()


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    """The metrics but for the timings; a line that is none counts as an empty row."""
    rows = []
    for line in (workdir / "metrics.jsonl").read_text("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = {}
        rows.append({k: v for k, v in row.items() if k not in TIMINGS})
    return rows


def num_events(workdir: Path) -> int:
    """How many whole records TensorBoard finds before the end, or a broken one."""
    count = 0
    for path in workdir.glob("events.out.tfevents.*"):
        data, at = path.read_bytes(), 0
        while at + 16 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            at += 16 + length
            count += at <= len(data)
    return count


def one_try(
    clone: Path, photos: Path, workdir: Path, *, seconds: float, step: int
) -> tuple[int | None, str]:
    """A run whose disk is full from some step on: exit code (None: hung) and output."""
    log = workdir.parent.with_suffix(".log")
    process = start(clone, photos, workdir, log)
    end = time.monotonic() + HANGS_S
    while process.poll() is None and time.monotonic() < end:
        if f"\nstep {step}/" in log.read_text("utf-8", "replace"):
            keep_full(workdir.parent / "filler", seconds)
            break
        time.sleep(0.01)
    try:
        code = process.wait(timeout=HANGS_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        code = None
    return code, log.read_text("utf-8", "replace")


def measure(
    kind: str, clone: Path, photos: Path, whole: Path, *, tries: int, seconds: float
) -> dict[str, Any]:
    """How so many runs on one kind of file system end."""
    rng = random.Random(0)
    expected, events = rows_of(whole), num_events(whole)
    digest = describe_checkpoint(whole).digest
    last = max(row["step"] for row in expected)
    ends: Counter[str] = Counter()
    missing, lost_events, lines = [], [], []
    for number in range(tries):
        folder = whole.parent / f"{kind}{number}"
        with small_disk(folder, kind, size=DISK_BYTES) as disk:
            step = rng.randint(last // 8, last // 2)
            code, said = one_try(
                clone, photos, disk / "run", seconds=seconds, step=step
            )
            ends["hung" if code is None else f"exit code {code}"] += 1
            ends["traceback"] += "Traceback" in said
            rows = rows_of(disk / "run")
            missing.append(sum(row not in rows for row in expected))
            lost_events.append(events - num_events(disk / "run"))
            lines.append(said.count("WARNING"))
            ends["metrics as without the fault"] += rows == expected
            if code == 0:
                found = describe_checkpoint(disk / "run").digest
                ends["bit-equal"] += found == digest
        print(f"{kind} {number}: {dict(ends)}", file=sys.stderr, flush=True)
    return {
        "file_system": kind,
        "tries": tries,
        "seconds_full": seconds,
        **{name: count for name, count in sorted(ends.items()) if count},
        "rows": len(expected),
        "rows_missing_at_most": max(missing),
        "events": events,
        "events_missing_at_most": max(lost_events),
        "warnings_at_most": max(lines),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=at_least(1), default=10)
    parser.add_argument(
        "--seconds", type=positive, default=4.0, help="how long it is full"
    )
    parser.add_argument("--clone", type=Path, default=ROOT, help="the version to try")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args(arguments)
    print_machine(["jax", "orbax-checkpoint", "tensorboardX"])
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        photos = base / "photos"
        write_photos(photos / "train", 32)
        write_photos(photos / "val", 6, seed=1)
        whole = base / "whole"
        began = time.perf_counter()
        process = start(options.clone, photos, whole, base / "whole.log")
        if process.wait():
            raise SystemExit((base / "whole.log").read_text())
        print(f"undisturbed: {time.perf_counter() - began:.1f} s", flush=True)
        for kind in options.kinds:
            found = measure(
                kind,
                options.clone,
                photos,
                whole,
                tries=options.tries,
                seconds=options.seconds,
            )
            print(json.dumps(found, indent=2), flush=True)


if __name__ == "__main__":
    outlive_readers()
    main()
