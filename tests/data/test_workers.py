"""What reading processes may take, and what is done where there is too little."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from PIL import Image

from multigrain_jax.data import workers
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.workers import (
    Processes,
    begin_processes,
    clear_left_memory,
    fitting,
    free_shared_memory,
)

MEGABYTE = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")


@pytest.mark.parametrize(
    ("free", "expected", "then"),
    [
        (12, Processes(2, 4), None),
        (11, Processes(2, 3), "2 read 3 batches ahead each instead"),
        (6, Processes(2, 1), "2 read 1 batches ahead each instead"),
        (5, Processes(1, 1), "1 read 1 batches ahead each instead"),
        (3, Processes(0, 4), "has 3 MiB free: images are read with threads instead"),
        (0, Processes(0, 4), "cannot be written, or is full: images are read with"),
        (None, Processes(2, 4), None),
    ],
)
def test_only_processes_with_enough_shared_memory_read(
    monkeypatch, capsys, free, expected, then
):
    """Two processes with four batches each ready and one in hand; two are let go."""
    room = None if free is None else free * MEGABYTE
    monkeypatch.setattr(workers, "free_shared_memory", lambda: room)
    assert fitting(Processes(2, 4), MEGABYTE) == expected
    said = capsys.readouterr().out
    assert said.count("\n") == (then is not None)
    if then is not None:
        assert "num_workers = 2: the batches in flight want about 12 MiB" in said
        assert then in said and "--shm-size" in said


def test_after_a_death_more_is_to_be_free(monkeypatch):
    monkeypatch.setattr(workers, "free_shared_memory", lambda: 12 * MEGABYTE)
    found = [fitting(Processes(2, 4), MEGABYTE, deaths=n).number for n in range(4)]
    assert found == [2, 2, 1, 0]


def test_threads_need_no_shared_memory(monkeypatch):
    monkeypatch.setattr(workers, "free_shared_memory", lambda: 0)
    assert fitting(Processes(0, 4), MEGABYTE) == Processes(0, 4)


@linux
def test_shared_memory_that_is_missing_or_read_only_has_no_room(monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: usage(7))
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    assert free_shared_memory() == 7
    monkeypatch.setattr(workers.os, "access", lambda path, mode: False)
    assert free_shared_memory() == 0
    monkeypatch.undo()
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path / "none")
    assert free_shared_memory() == 0


@linux
def test_what_killed_runs_have_left_is_cleared_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    left = ["mg0a1b2c.lock", "mg0a1b2c1234", "mg0a1b2cffff"]
    others = ["psm_0a1b2c3d", "mg0a1b2d1234", "mg-other.lock", "sem.mp-x"]
    living = ["mg123456.lock", "mg123456abcd"]
    for name in [*left, *others, *living]:
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / living[0]).open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_left_memory()
    assert {path.name for path in tmp_path.iterdir()} == {*others, *living}


SCRIPT = """
import json, multiprocessing.shared_memory, os, sys
import numpy as np
from multigrain_jax.data import workers
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
workers.begin_processes(photo_bytes=1 << 20, batches_bytes=1 << 20)(0, 1)
print("a line for which there is no room", file=sys.stderr, flush=True)
found = {}
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=8)
found["name"] = memory.name
found["locks"] = [n for n in os.listdir("/dev/shm") if memory.name.startswith(n[:8])]
memory.close()
memory.unlink()
try:
    np.empty(3 << 30, np.uint8)
    found["limit"] = "none"
except MemoryError:
    found["limit"] = "MemoryError"
np.empty(900 << 20, np.uint8)
print(json.dumps(found))
"""


@linux
def test_a_process_names_what_it_shares_and_takes_a_bounded_amount_of_memory():
    command = [sys.executable, "-c", SCRIPT]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=full, text=True, check=True
        )
    found = json.loads(done.stdout)
    assert found["limit"] == "MemoryError"
    assert found["name"][:2] == "mg" and f"{found['name'][:8]}.lock" in found["locks"]
    # The lock file goes with the process.
    assert not os.path.exists(f"/dev/shm/{found['name'][:8]}.lock")


@linux
def test_names_are_claimed_once_for_all_passes_over_the_data():
    one = begin_processes(photo_bytes=1, batches_bytes=1)
    other = begin_processes(photo_bytes=1, batches_bytes=1)
    assert one.keywords["token"] == other.keywords["token"]


FILLING = """
import numpy as np
from multigrain_jax.data.reading import Reading, iterate

def make(number):
    return {"image": np.full(1 << 20, number, np.uint8)}

if __name__ == "__main__":
    options = {"batch_bytes": 1 << 20, "photo_bytes": 1}
    found = []
    for batch in iterate(make, range(20), reading=Reading(2, 4, 600.0), **options):
        found.append(int(batch["image"].max()))
        if len(found) == 4:
            file = open("/dev/shm/filling", "wb", buffering=0)
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
    assert found == list(range(20)), found
"""


@linux
@pytest.mark.slow
def test_shared_memory_that_fills_during_the_run_costs_no_batch(tmp_path):
    """In a shared memory of its own, where one can be mounted."""
    (tmp_path / "filling.py").write_text(FILLING)
    mount = "mount -t tmpfs -o size=5m tmpfs /dev/shm"
    alone = ["unshare", "-m", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*alone, mount]).returncode:
        pytest.skip("no right to mount a file system here")
    command = f"{mount} && exec {sys.executable} {tmp_path / 'filling.py'}"
    done = subprocess.run([*alone, command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 read 1 batches ahead each instead" in done.stdout
    assert "has 5 MiB free" in done.stdout


@linux
@pytest.mark.slow
def test_a_photo_that_takes_more_than_a_process_may_is_one_bad_image(
    monkeypatch, tmp_path
):
    """As if the limit of a photo did not count: 300 MiB beside the batches."""
    monkeypatch.setattr(workers, "_COPIES_OF_PHOTO", 0)
    monkeypatch.setattr(workers, "_SLACK_BYTES", 300 << 20)
    files = []
    for number, side in enumerate((64, 11_000, 64)):
        path = tmp_path / f"{number}.png"
        Image.new("L", (side, side), 200).save(path)  # as RGB, half a gigabyte
        files.append(ImageFile(str(path), 0))
    source = FileSource(files, class_names=["a"], decoding=VIEWER, local_cache_dir=None)
    plan = plan_batches(
        source,
        test_size=32,
        test_mode="square",
        batch_size=3,
        smallest_side=1,
        timeout_s=600.0,
    )
    (batch,) = make_eval_batches(source, plan, reading=Reading(1, 1, 600.0))
    assert batch["bad"].tolist() == [False, True, False]
    assert batch["image"].max(axis=(1, 2, 3)).tolist() == [200, 0, 200]
