"""What the real command leaves when it is stopped while its images hang, or killed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import ENVIRONMENT, TRAINING

from measure.commands import ROOT, command_line
from multigrain_jax.checkpoint import checkpoint_steps

SHARED_MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def running(photos: Path, workdir: Path, **settings) -> Iterator[subprocess.Popen[str]]:
    """The command, once it has made seven steps; its output is thrown away then."""
    settings = {"num_epochs": 4000, "validate_first": False, **settings}
    settings = {**TRAINING, "data.root": photos, **settings}
    with subprocess.Popen(
        command_line("base", workdir, settings),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 7/"):
                break
        # Nobody reads on: a command that `| head` follows.
        process.stdout.close()
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_while_the_images_hang_saves_the_state(photos, tmp_path, workers):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    with running(
        root, tmp_path / "run", num_workers=workers, checkpoint_every_epochs=1000
    ) as process:
        pipe = tmp_path / "pipe"
        for photo in (root / "train").glob("*/*"):
            # Opening a named pipe that nobody writes to waits for ever.
            os.mkfifo(pipe)
            pipe.replace(photo)
        metrics = tmp_path / "run" / "metrics.jsonl"
        rows = -1
        while rows != (rows := len(metrics.read_text().splitlines())):
            time.sleep(2)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 3
        # The limit for data is 600 seconds.
        assert time.monotonic() - asked < 60
    (step,) = checkpoint_steps(tmp_path / "run" / "checkpoints")
    assert step >= 7


def processes_of(session: int) -> set[int]:
    """The processes of a session that still run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.add(int(path.parent.name))
    return found


def names_shared(process: int) -> str:
    """How the names begin of what a process and its own share: as its lock file's."""
    names = []
    for path in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by now
            if found := re.fullmatch(r"/dev/shm/(\w+)\.lock", os.readlink(path)):
                names.append(found[1])
    (name,) = names
    return name


def batches_of(prefix: str) -> set[Path]:
    """What is still shared under such names, and holds a batch of images."""
    found = set()
    for path in SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= 16 * 33 * 33 * 3:
                found.add(path)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_a_kill_leaves_no_process_and_no_shared_memory(photos, tmp_path):
    with running(photos, tmp_path / "run", num_workers=2) as process:
        assert len(processes_of(process.pid)) > 2
        prefix = names_shared(process.pid)
        while not batches_of(prefix):
            assert process.poll() is None
        process.kill()
        process.wait(timeout=60)
        end = time.monotonic() + 60
        while processes_of(process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        assert not processes_of(process.pid)
        while batches_of(prefix) and time.monotonic() < end:
            time.sleep(0.1)
        assert not batches_of(prefix)
