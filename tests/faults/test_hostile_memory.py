"""A thousand hostile photos: as many counted skips, and no memory beside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.bombs import BOMBS

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, math, sys
from pathlib import Path
import numpy as np
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.open import open_source

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

source = open_source(
    source="folder", root=sys.argv[1], split=None, list_file=None, val_fraction=0.0,
    num_images=None, local_cache_dir=None, decoding=VIEWER, exclude=(),
    unreadable_folders="refuse", instances=None,
)
skips = SkipLog(source, workdir=Path(sys.argv[2]), max_fraction=math.inf)
plan = plan_batches(
    source, test_size=32, test_mode="rect", batch_size=50, smallest_side=1,
    timeout_s=600.0,
)
import grain  # takes some too, and is imported where it reads

peaks = [peak()]
for batch in make_eval_batches(source, plan, reading=Reading(0, 2, 600.0)):
    skips.record(batch["index"][batch["bad"]])
    peaks.append(peak())
print(json.dumps({"peaks": peaks, "images": len(source)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_thousand_bombs_are_a_thousand_skips_and_memory_stays_flat(tmp_path):
    photos, workdir = tmp_path / "photos" / "a", tmp_path / "run"
    photos.mkdir(parents=True)
    workdir.mkdir()
    bombs = list(BOMBS.values())
    for number in range(1000):
        (photos / f"{number:04d}.jpg").write_bytes(bombs[number % len(bombs)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(photos.parent), str(workdir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["images"] == 1000
    lines = (workdir / "skipped.txt").read_text().splitlines()
    assert len(lines) == 1000 and all("limit" in line for line in lines)
    first, second, *_, last = found["peaks"]
    # After the headers of all, and fifty that were decoded, as good as nothing comes.
    assert last - second < 32 << 20
    assert last - first < 128 << 20
