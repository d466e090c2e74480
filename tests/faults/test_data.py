"""Reading that breaks: processes killed or hanging, files and folders that vanish."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import fault_config
from helpers.sources import open_photos

from multigrain_jax.data.eval_batches import plan_batches
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.train_batches import make_train_batches
from multigrain_jax.errors import DataStalledError, InputError
from multigrain_jax.tasks.train import run

ROOT = Path(__file__).parents[2]
NUM_BATCHES = 12


def open_batches(source, *, num_workers, first_step=0, timeout_s=600.0):
    stream = RepeatedStream(
        num_images=len(source),
        num_repeats=3,
        epoch_len_factor=4.0,
        batch_size=8,
        seed=1,
    )
    return make_train_batches(
        source,
        stream,
        train_size=16,
        augmentation="full",
        crop_area_min=0.08,
        crop_resize="pillow",
        seed=5,
        first_step=first_step,
        num_steps=NUM_BATCHES - first_step,
        batch_slice=slice(0, 8),
        reading=Reading(num_workers, prefetch=2, timeout_s=timeout_s),
    )


def reading_processes():
    return [p for p in multiprocessing.active_children() if p.name.startswith("grain")]


@pytest.mark.slow
def test_killed_processes_are_replaced_and_no_batch_is_lost(photos, capsys):
    source = open_photos(photos, "train")
    expected = list(open_batches(source, num_workers=0))
    batches = open_batches(source, num_workers=2)
    started = time.perf_counter()
    got = [next(batches), next(batches)]
    starting = time.perf_counter() - started
    for process in reading_processes():
        process.kill()
    started = time.perf_counter()
    got += batches
    # However long starting processes takes here, nothing else is waited for.
    assert time.perf_counter() - started < 30 + 5 * starting
    assert "a reading process died" in capsys.readouterr().out
    assert len(got) == len(expected) == NUM_BATCHES
    for one, other in zip(got, expected, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def start_reading(source):
    """Batches whose processes are up, and their limit: one that starting keeps."""
    for timeout_s in (15.0, 60.0, 240.0):
        batches = open_batches(source, num_workers=2, timeout_s=timeout_s)
        with contextlib.suppress(DataStalledError):
            next(batches)
            return batches, timeout_s
    raise AssertionError("the machine is too busy to start a process in 4 minutes")


@pytest.mark.slow
def test_hanging_processes_end_in_an_error(photos):
    batches, timeout_s = start_reading(open_photos(photos, "train"))
    for process in reading_processes():
        os.kill(process.pid, signal.SIGSTOP)
    started = time.perf_counter()
    with pytest.raises(DataStalledError, match=f"data_timeout_s = {timeout_s:g} sec"):
        list(batches)
    assert time.perf_counter() - started < timeout_s + 60
    while reading_processes():
        assert time.perf_counter() - started < timeout_s + 120
        time.sleep(0.1)


@pytest.mark.slow
def test_a_file_that_never_answers_ends_the_command(photos, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    # Opening a named pipe that nobody writes to waits for ever; one without a link
    # to it would not be listed.
    os.mkfifo(tmp_path / "pipe")
    (root / "train" / "disc" / "pipe.png").symlink_to(tmp_path / "pipe")
    settings = {
        "backbone": "tiny",
        "data.source": "folder",
        "data.root": root,
        "data_timeout_s": 5.0,
        "batch_size": 16,
        "train_size": 33,
        "test_size": 33,
        "validate_first": False,
    }
    command = [sys.executable, "-m", "multigrain_jax.main"]
    command += ["--config", "configs/base.py", "--workdir", str(tmp_path / "run")]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "no batch of images came within data_timeout_s = 5 seconds" in done.stderr


def test_a_header_that_never_comes_ends_in_an_error(photos, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (root / "train" / "disc" / "pipe.png").symlink_to(pipe)
    with pytest.raises(DataStalledError, match=r"no image header came .* 5 sec"):
        plan_batches(
            open_photos(root, "train"),
            test_size=33,
            test_mode="rect",
            batch_size=4,
            smallest_side=1,
            timeout_s=5.0,
        )
    # The thread that was left behind sees the end of the file.
    os.close(os.open(pipe, os.O_RDWR))


def test_a_data_set_that_vanishes_ends_the_run(photos, tmp_path, monkeypatch):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    real, reads = FileSource.read, []

    def read(self, index):
        reads.append(index)
        if len(reads) == 20:
            shutil.rmtree(root)
        return real(self, index)

    monkeypatch.setattr(FileSource, "read", read)
    with pytest.raises(InputError, match=r"in a row could not be read|max_skipped"):
        run(fault_config(root), tmp_path / "run")


def test_files_that_vanish_are_replaced_and_listed(photos, tmp_path, monkeypatch):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    real, reads = FileSource.read, []
    victim = root / "train" / "dots" / "3.png"

    def read(self, index):
        reads.append(index)
        if len(reads) == 5:
            victim.unlink()
        return real(self, index)

    monkeypatch.setattr(FileSource, "read", read)
    run(fault_config(root, max_skipped_fraction=0.1), tmp_path / "run")
    (line,) = (tmp_path / "run" / "skipped.txt").read_text().splitlines()
    assert str(victim) in line and "No such file" in line


def test_an_unreadable_folder_is_named(photos, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("dots"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"dots.*Permission denied"):
        open_photos(photos, "train")
