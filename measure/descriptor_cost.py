"""What it costs that descriptor folders know what they hold.

    python measure/descriptor_cost.py --photos 20000 --rows 1000000

Seconds, and seconds of the processor, of `embed` over so many small photos by the
smallest network, and of opening a folder of so many descriptors of 256 dimensions; both
in processes of their own, several times. Another version's clone is measured with
--clone, as long as its modules have the same names.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.arguments import at_least
from measure.commands import ROOT, command_line, environment, write_photos
from measure.machine import print_machine
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.terminal import outlive_readers

DIM = 256
WRITE = f"""
import sys
from pathlib import Path
import numpy as np
from multigrain_jax.descriptors.folder import DescriptorSettings, ImageStamp
from multigrain_jax.descriptors.writer import DescriptorWriter
settings = DescriptorSettings(
    dim={DIM}, dtype="float16", model_digest="d", backbone="tiny",
    pooling_exponent=3.0, test_size=64, test_mode="rect", whitened=False,
)
count = int(sys.argv[2])
names = (f"/photos/album {{i // 500}}/IMG_{{i:07d}}.jpg" for i in range(count))
images = [ImageStamp(name, i, 5) for i, name in enumerate(names)]
writer = DescriptorWriter(Path(sys.argv[1]), settings, rows_per_shard=16384)
writer.begin(images, lambda indices: indices)
rng = np.random.default_rng(0)
for first in range(0, count, 4096):
    some = images[first : first + 4096]
    rows = rng.standard_normal((len(some), {DIM}), np.float32)
    writer.add(some, rows, ["ok"] * len(some))
writer.finish()
"""
OPEN = """
import json, sys, time
from multigrain_jax.descriptors.index import DescriptorIndex
wall, cpu = time.perf_counter(), time.process_time()
index = DescriptorIndex.open(sys.argv[1])
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, len(index)]))
"""


def timed(command: list[str], clone: Path) -> tuple[float, float, str]:
    """Seconds, seconds of the processor, and the output of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=clone,
        env=environment(clone),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def measure_embed(
    base: Path, clone: Path, count: int, repetitions: int
) -> dict[str, Any]:
    """What `embed` takes for new photos, and once more where nothing is new."""
    photos = write_photos(base / "photos", count, side=48)
    _, variables = split_model(create_model("tiny", num_classes=3, seed=1))
    store = CheckpointStore(base / "model")
    meta = {"backbone": "tiny", "num_classes": 3, "class_names": ["a", "b", "c"]}
    store.save(1, model=variables, meta={**meta, "config": None})
    store.close()
    settings = {"init_from": base / "model", "data.root": photos}
    settings |= {"test_size": 48, "batch_size": 32}
    rows: dict[str, list[float]] = {
        "new": [],
        "new_cpu": [],
        "none": [],
        "none_cpu": [],
    }
    for number in range(repetitions):
        command = command_line("embed", base / f"embed{number}", settings)
        for name in ("new", "none"):
            wall, cpu, _ = timed(command, clone)
            rows.setdefault(name, []).append(wall)
            rows.setdefault(f"{name}_cpu", []).append(cpu)
    return {
        "photos": count,
        **{f"embed_{name}_s": min(values) for name, values in rows.items()},
    }


def measure_open(
    base: Path, clone: Path, count: int, repetitions: int
) -> dict[str, Any]:
    """What opening a folder takes."""
    folder = str(base / "descriptors")
    timed([sys.executable, "-c", WRITE, folder, str(count)], clone)
    found = [
        json.loads(timed([sys.executable, "-c", OPEN, folder], clone)[2])
        for _ in range(repetitions)
    ]
    walls, cpus, lengths = zip(*found, strict=True)
    assert set(lengths) == {count}
    return {
        "rows": count,
        "open_s": min(walls),
        "open_median_s": statistics.median(walls),
        "open_cpu_s": min(cpus),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=at_least(0), default=20_000)
    parser.add_argument("--rows", type=at_least(0), default=1_000_000)
    parser.add_argument("--repetitions", type=at_least(1), default=3)
    parser.add_argument("--clone", type=Path, default=ROOT, help="the version to try")
    options = parser.parse_args(arguments)
    print_machine(["jax", "numpy", "pillow"])
    with tempfile.TemporaryDirectory() as folder:
        base, clone = Path(folder), options.clone
        if options.rows:
            found = measure_open(base, clone, options.rows, options.repetitions)
            print(json.dumps(found), flush=True)
        if options.photos:
            found = measure_embed(base, clone, options.photos, options.repetitions)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    outlive_readers()
    main()
