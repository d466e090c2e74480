"""Faults that are done to a command, each to any task, and how the command ends."""

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from measure.commands import small_disk
from measure.fault_stage import WITHOUT_READING, Stage, Trial

Fault = Callable[[Stage, str], str]
# Of time, that a run with a read that hangs gets before it is signalled.
INTO_THE_READING_S = 3.0
STARTED_AFTER_S = 20.0
UNTRIED = "–"


def disk_full(stage: Stage, task: str) -> str:
    """Room for two files, and for no third."""
    workdir = stage.fresh(task)
    with small_disk(workdir, "tmpfs", size=8 << 10):
        trial = stage.start(task, workdir)
        trial.wait()
        return stage.judge(task, trial, workdir)


def passing_errors(stage: Stage, task: str) -> str:
    """Photos that are away for a moment, with every error of the system in turn."""
    return _run(stage, task, failing_reads=True)


def lasting_error(stage: Stage, task: str) -> str:
    """One photo that cannot be read at all."""
    for part in ("train", "val"):
        folder = stage.folder / "photos" / part / "class0"
        (folder / "0.jpg").rename(folder / "lasting.jpg")
    return _run(stage, task, failing_reads=True)


def hanging_read(stage: Stage, task: str) -> str:
    """A named pipe in place of a photo, and five seconds of patience."""
    _hang_reads(stage)
    patience: dict[str, Any] = (
        {} if task in WITHOUT_READING else {"data_timeout_s": 5.0}
    )
    return _run(stage, task, **patience)


def damaged_photo(stage: Stage, task: str) -> str:
    """A photo that is cut in half."""
    for part in ("train", "val"):
        photo = stage.folder / "photos" / part / "class0" / "0.jpg"
        photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    return _run(stage, task)


def second_process(stage: Stage, task: str) -> str:
    """The lock of the workdir is held."""
    workdir = stage.fresh(task)
    workdir.mkdir(parents=True)
    with (workdir / ".lock").open("w") as file:
        file.write("process 1 on elsewhere since yesterday\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        trial = stage.start(task, workdir)
        trial.wait()
    return stage.judge(task, trial, workdir)


def signalled(number: int, *, group: bool) -> Fault:
    """A signal to the process or to its group, while a read hangs."""

    def fault(stage: Stage, task: str) -> str:
        _hang_reads(stage)
        readers: dict[str, Any] = {} if task in WITHOUT_READING else {"num_workers": 1}
        trial = stage.start(task, stage.fresh(task), **readers)
        if not _wait_for_work(stage, task, trial):
            return "ended before: " + stage.judge(task, trial, stage.fresh(task))
        (os.killpg if group else os.kill)(trial.process, number)
        trial.wait()
        return stage.judge(task, trial, stage.fresh(task))

    return fault


def killed_with_workers(stage: Stage, task: str) -> str:
    """SIGKILL to the process, which has two that read."""
    if task in WITHOUT_READING:
        return UNTRIED
    _hang_reads(stage)
    trial = stage.start(task, stage.fresh(task), num_workers=2)
    if not _wait_for_work(stage, task, trial):
        return "ended before: " + stage.judge(task, trial, stage.fresh(task))
    os.kill(trial.process, signal.SIGKILL)
    trial.wait()
    return stage.judge(task, trial, stage.fresh(task))


def killed_worker(stage: Stage, task: str) -> str:
    """SIGKILL to the process that reads, once."""
    if task in WITHOUT_READING:
        return UNTRIED
    trial = stage.start(task, stage.fresh(task), num_workers=1)
    while trial.is_running():
        readers = [p for p, line in trial.members().items() if "spawn_main" in line]
        if readers:
            os.kill(readers[0], signal.SIGKILL)
            break
        time.sleep(0.02)
    trial.wait()
    return stage.judge(task, trial, stage.fresh(task))


def damaged_input(stage: Stage, task: str) -> str:
    """A bit in the middle of every file of descriptors, or of a checkpoint's model."""
    remembers = task in ("train", "embed")
    reads_descriptors = task in ("search", "near_duplicates")
    place = stage.folder / ("database" if reads_descriptors else "model")
    place = stage.done(task) if remembers else place
    flipped = [*place.glob("descriptors/*.npy")]
    steps = [int(path.name) for path in place.glob("checkpoints/*")]
    if steps:
        flipped += place.glob(f"checkpoints/{max(steps)}/model/**/*")
    for path in flipped:
        if path.is_file() and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 16
            path.write_bytes(data)
    if not remembers:
        return _run(stage, task)
    return _again(stage, task, **({"num_epochs": 3} if task == "train" else {}))


def cut_files(stage: Stage, task: str) -> str:
    """Config, metrics, results and index of the workdir and what is read, cut."""
    for place in (stage.folder / "database", stage.folder / "model", stage.done(task)):
        for name in ("config.json", "results.json", "descriptors/index.csv"):
            with contextlib.suppress(FileNotFoundError):
                path = place / name
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return _again(stage, task)


def changed_photos(stage: Stage, task: str) -> str:
    """Another photo under the same name, another one renamed, since the run before."""
    for part in ("train", "val"):
        folder = stage.folder / "photos" / part
        shutil.copy(folder / "class1" / "1.jpg", folder / "class0" / "0.jpg")
        (folder / "class2" / "2.jpg").rename(folder / "class2" / "renamed.jpg")
    return _again(stage, task).replace("SILENT", "other results")


def _run(stage: Stage, task: str, **settings: Any) -> str:
    workdir = stage.fresh(task)
    trial = stage.start(task, workdir, **settings)
    trial.wait()
    return stage.judge(task, trial, workdir)


def _again(stage: Stage, task: str, **settings: Any) -> str:
    workdir = stage.done(task)
    trial = stage.start(task, workdir, **settings)
    trial.wait()
    return stage.judge(task, trial, workdir)


def _hang_reads(stage: Stage) -> None:
    for part in ("train", "val"):
        photo = stage.folder / "photos" / part / "class0" / "copy.jpg"
        photo.unlink()
        os.mkfifo(photo)


def _wait_for_work(stage: Stage, task: str, trial: Trial) -> bool:
    """Wait until a run is well under way; whether it still runs then."""
    begun = stage.fresh(task) / "config.json"
    end = time.monotonic() + STARTED_AFTER_S
    # Some tasks read headers, which hang here, before they write anything.
    while trial.is_running() and not begun.exists() and time.monotonic() < end:
        time.sleep(0.05)
    end = time.monotonic() + INTO_THE_READING_S
    while trial.is_running() and time.monotonic() < end:
        time.sleep(0.05)
    return trial.is_running()


FAULTS: dict[str, Fault] = {
    "disk full": disk_full,
    "every errno for 0.3 s": passing_errors,
    "EIO for good": lasting_error,
    "a read hangs": hanging_read,
    "a photo is cut": damaged_photo,
    "lock held": second_process,
    "SIGTERM": signalled(signal.SIGTERM, group=False),
    "SIGINT to the group": signalled(signal.SIGINT, group=True),
    "SIGHUP": signalled(signal.SIGHUP, group=False),
    "SIGKILL": killed_with_workers,
    "SIGKILL to a reader": killed_worker,
    "bits flipped in what is read": damaged_input,
    "files cut": cut_files,
    "photos changed": changed_photos,
}
