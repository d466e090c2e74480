"""What a workdir in a bucket costs: requests and time of saves and log intervals.

    python measure/buckets.py
    python measure/buckets.py --megabytes 189 --files 40 --delay_ms 50

Against an emulator on this machine, in memory: the time is that of this program and of
the emulator, without a network; `--delay_ms` is waited before each answer. Needs the
extra `test`.
"""

import argparse
import importlib
import os
import site
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.arguments import at_least, not_negative
from measure.machine import print_machine
from multigrain_jax import mirror
from multigrain_jax.files import settle
from multigrain_jax.terminal import outlive_readers
from multigrain_jax.working_copy import working_copy

TIMES = 5


class Table:
    """Times and requests of what is done several times."""

    def __init__(self, server: Any):
        self._server = server
        self._rows: dict[str, list[tuple[float, dict[str, int]]]] = {}

    @contextmanager
    def row(self, what: str) -> Generator[None]:
        """Time what is done in this context, and count its requests."""
        self._server.requests.clear()
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        counted = dict(sorted(self._server.requests.items()))
        self._rows.setdefault(what, []).append((seconds, counted))

    def show(self) -> None:
        """Print the median time, and the requests of the last time."""
        for what, taken in self._rows.items():
            seconds = statistics.median(seconds for seconds, _ in taken)
            counted = ", ".join(f"{n} {kind}" for kind, n in taken[-1][1].items())
            print(f"| {what} | {seconds:.3f} s | {counted or 'none'} |")


def log(folder: Path, number: int) -> None:
    """What a log interval appends to."""
    for name in ("metrics.jsonl", "events.out.tfevents.0", "sample_ids.jsonl"):
        with (folder / name).open("ab") as file:
            file.write(b"%0400d\n" % number)


def save(folder: Path, number: int, size: int, files: int) -> None:
    """A checkpoint, with its last file last."""
    step = folder / "checkpoints" / str(number)
    (step / "meta").mkdir(parents=True)
    for file in range(files - 1):
        data = os.urandom(size // (files - 1))
        (step / str(file)).write_bytes(data)
    (step / "meta" / "metadata").write_bytes(b"{}")


def measure(server: Any, megabytes: int, files: int, cache: str) -> Table:
    """Time what a run does that logs and saves, and its start elsewhere."""
    table, url = Table(server), server.url("run")
    with working_copy(url) as folder:
        for number in range(TIMES):
            log(folder, number)
            with table.row("log interval: metrics, events, sample ids"):
                settle(folder)
        with table.row("nothing has changed"):
            settle(folder)
        for number in range(TIMES):
            save(folder, number, megabytes << 20, files)
            with table.row(f"checkpoint of {megabytes} MiB in {files} files"):
                settle(folder)
    os.environ["MULTIGRAIN_CACHE"] = f"{cache}/elsewhere"
    with table.row(f"start and end elsewhere, {TIMES} checkpoints"), working_copy(url):
        pass
    with table.row("start and end where all is here"), working_copy(url):
        pass
    return table


def late(answer: Callable[[str], str | None], seconds: float) -> Callable:
    """The faults of a server whose answers take longer."""

    def wait(kind: str) -> str | None:
        time.sleep(seconds)
        return answer(kind)

    return wait


def main(arguments: list[str] | None = None) -> None:
    """Print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=at_least(1), default=189)
    parser.add_argument("--files", type=at_least(1), default=40)
    parser.add_argument("--delay_ms", type=not_negative, default=0.0)
    options = parser.parse_args(arguments)
    # The emulator of the tests.
    site.addsitedir(str(Path(__file__).resolve().parent.parent / "tests"))
    emulator = importlib.import_module("helpers.buckets")
    print_machine(("google-cloud-storage", "gcp-storage-emulator"))
    server = emulator.Gcs()
    server.renew()
    server.faults.of = late(server.faults.of, options.delay_ms / 1000)
    mirror.PASS_S = 1e6  # here passes are asked for
    with tempfile.TemporaryDirectory() as cache, emulator.told(server):
        os.environ["MULTIGRAIN_CACHE"] = cache
        measure(server, options.megabytes, options.files, cache).show()
    server.close()


if __name__ == "__main__":
    outlive_readers()
    main()
