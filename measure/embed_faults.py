"""Two of the command `embed` in one workdir, and kills in every phase of one.

    python measure/embed_faults.py --tries 10 --photos 1500

Two at once: how each ends, and how many paths have another descriptor afterwards than
that of a run alone. Kills (SIGKILL): as soon as a phase begins, which a file tells; the
same command then goes on, and the folder is compared with that of a run that was never
killed. Another version's clone is tried with --clone.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.arguments import at_least
from measure.commands import ROOT, command_line, write_photos
from measure.forking import Commands
from measure.machine import print_machine
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.terminal import outlive_readers

HANGS_S = 300.0
ROWS_PER_SHARD = 64
FOLDER = "descriptors"


class Embeds:
    """Photos and a model, and the command that embeds them."""

    def __init__(self, base: Path, clone: Path, *, photos: int):
        """Make the photos and the model."""
        self.base = base
        root = write_photos(base / "photos", photos, side=48)
        _, variables = split_model(create_model("tiny", num_classes=3, seed=1))
        store = CheckpointStore(base / "model")
        meta = {"backbone": "tiny", "num_classes": 3, "class_names": ["a", "b", "c"]}
        store.save(1, model=variables, meta={**meta, "config": None})
        store.close()
        self._settings = {"init_from": base / "model", "data.root": root}
        self._settings |= {"test_size": 48, "rows_per_shard": ROWS_PER_SHARD}
        self._settings |= {"batch_size": 8}
        self.commands = Commands(clone, ["embed"], compiled=base / "compiled")
        self._number = 0

    def start(self, workdir: Path) -> int:
        """Start one; its process."""
        self._number += 1
        log = self.base / f"{self._number}.log"
        words = command_line("embed", workdir, self._settings)
        return self.commands.start(
            words, stdout=log, stderr=log, variables={}, site=None
        )

    def end(self, process: int) -> int | None:
        """The exit code of one."""
        return self.commands.wait(process, HANGS_S)


def descriptors_of(workdir: Path) -> dict[str, bytes] | None:
    """The descriptor of every path; None where the folder does not open.

    That nothing is in it yet, it says.
    """
    try:
        index = DescriptorIndex.open(workdir)
        rows = np.flatnonzero(index.live)
        whole = index.read(0, len(index))
    except InputError as error:
        if "no descriptors in it" in str(error):
            return {}
        print(f"{workdir} does not open: {error}", file=sys.stderr)
        return None
    paths = index.paths(rows)
    return {p: whole[row].tobytes() for p, row in zip(paths, rows, strict=True)}


def contents(workdir: Path) -> dict[str, bytes]:
    """Every file of the folder of descriptors."""
    return {p.name: p.read_bytes() for p in sorted((workdir / FOLDER).iterdir())}


def two_at_once(embeds: Embeds, whole: Path, *, tries: int) -> dict[str, Any]:
    """How two that start together end."""
    expected = descriptors_of(whole)
    assert expected is not None
    ends: Counter[str] = Counter()
    wrong, closed = [], 0
    for number in range(tries):
        workdir = embeds.base / f"two{number}"
        processes = [embeds.start(workdir) for _ in range(2)]
        codes = sorted(str(embeds.end(process)) for process in processes)
        ends[" and ".join(codes)] += 1
        found = descriptors_of(workdir)
        closed += found is None
        found = found or {}
        wrong.append(sum(found.get(path) != expected[path] for path in expected))
    return {
        "two_at_once": tries,
        "exit_codes": dict(ends),
        "folders_that_do_not_open": closed,
        "folders_with_wrong_descriptors": sum(number > 0 for number in wrong),
        "wrong_descriptors": [min(wrong), max(wrong)],
    }


def phases(workdir: Path, shards: int) -> dict[str, Callable[[], bool]]:
    """The phases of a run, and whether each has begun."""

    def has(name: str) -> Callable[[], bool]:
        return (workdir / name).exists

    found = {
        "lock": has(".lock"),
        "config": has("config.json"),
        "a file being written": lambda: any(workdir.rglob("*.partial")),
        "folder": has(FOLDER),
        "index": has(f"{FOLDER}/index.csv"),
        "head": has(f"{FOLDER}/descriptors.json"),
    }
    for number in (0, 1, shards // 2, shards - 2, shards - 1):
        found[f"shard {number}"] = has(f"{FOLDER}/shard-{number:05d}.npy")
    return {**found, "results": has("results.json")}


def kills(embeds: Embeds, whole: Path) -> dict[str, Any]:
    """How runs go on that were killed as a phase began."""
    expected = contents(whole)
    shards = len([name for name in expected if name.endswith(".npy")])
    unequal, killed, not_opened = [], [], []
    for number, phase in enumerate(phases(whole, shards)):
        workdir = embeds.base / f"killed{number}"
        begun = phases(workdir, shards)[phase]
        process = embeds.start(workdir)
        while not begun() and embeds.commands.poll(process) is None:
            time.sleep(0.0005)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        if embeds.end(process) == -signal.SIGKILL:
            killed.append(phase)
        head = workdir / FOLDER / "descriptors.json"
        if head.exists() and descriptors_of(workdir) is None:
            not_opened.append(phase)
        code = embeds.end(embeds.start(workdir))
        if code != 0 or contents(workdir) != expected:
            unequal.append(f"{phase} (exit code {code})")
    return {
        "killed_in": killed,
        "folders_that_do_not_open": not_opened,
        "other_bytes_after_going_on": unequal,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=at_least(1), default=10)
    parser.add_argument("--photos", type=at_least(1), default=1500)
    parser.add_argument("--clone", type=Path, default=ROOT, help="the version to try")
    options = parser.parse_args(arguments)
    print_machine(["jax", "numpy"])
    with tempfile.TemporaryDirectory() as name:
        embeds = Embeds(Path(name), options.clone, photos=options.photos)
        try:
            whole = embeds.base / "whole"
            assert embeds.end(embeds.start(whole)) == 0
            print(json.dumps(kills(embeds, whole)), flush=True)
            found = two_at_once(embeds, whole, tries=options.tries)
            print(json.dumps(found), flush=True)
        finally:
            embeds.commands.close()


if __name__ == "__main__":
    outlive_readers()
    main()
