"""Where a run's numbers go: the terminal, JSON lines and TensorBoard."""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from multigrain_jax.errors import InputError
from multigrain_jax.files import parse_json, read_small, write_durably
from multigrain_jax.growing_file import GrowingFile
from multigrain_jax.progress import Pace, has_bar
from multigrain_jax.workdir import METRICS_FILE

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

# Shown in the terminal, in this order and under these names.
TERMINAL_NAMES = {
    "train/loss": "loss",
    "train/cross_entropy": "cross-entropy",
    "train/margin": "margin",
    "train/infonce": "InfoNCE",
    "train/koleo": "KoLeo",
    "train/top1": "top-1",
    "train/images_per_second": "images/s",
    "train/data_wait_fraction": "waiting",
    "train/pooling_exponent": "p",
    "val/top1": "val top-1",
    "val/top5": "val top-5",
    "val/ema_top1": "ema val top-1",
}
# tensorboardX opens what begins so with the factory that is registered for it.
_EVENTS_PREFIX = "growing"
# A million rows have a half.
MAX_METRICS_BYTES = 1 << 30


class MetricWriter:
    """Writes metrics as they come; `close` it at the end.

    Files are written in the background: a full disk keeps no run waiting, and what it
    keeps out follows when there is room.
    """

    def __init__(self, workdir: Path | None, *, progress_total: int | None = None):
        """Open the files; metrics.jsonl is appended to.

        Args:
            workdir: the run's folder; None writes to the terminal only.
            progress_total: steps of the whole run, for the progress bar that a
                terminal shows; elsewhere plain lines are printed.
        """
        self._workdir = workdir
        self._path = workdir / METRICS_FILE if workdir else None
        self._events: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._total = progress_total
        self._pace = Pace(progress_total) if progress_total else None
        self._bar = (
            tqdm(total=progress_total, unit=" steps", dynamic_ncols=True)
            if progress_total and has_bar()
            else None
        )
        if self._path is not None and self._path.exists():
            # A crash can leave half a line, which the next one would be glued to.
            _replace_rows(self._path, read_metrics(self._path))
        self._rows = GrowingFile(self._path) if self._path else None

    def truncate_after(self, step: int) -> None:
        """Forget what was written for later steps, as a run resumes at `step`.

        To be called before the first `write`.
        """
        self._purge_step = step + 1
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if self._path is not None:
            truncate_rows(self._path, step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics to the files and to the terminal.

        Arguments as of `record`.
        """
        self.record(step, metrics)
        self._show(step, metrics)

    def ticking(self, batches: Iterable[Any], *, first_step: int) -> Iterator[Any]:
        """The batches of training steps; the bar moves with each that is taken.

        Args:
            batches: one for each step.
            first_step: updates done before the first of them.
        """
        for step, batch in enumerate(batches, start=first_step):
            self._move_bar(step)
            yield batch

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics to the files alone.

        JSON has no NaN and no infinity: they are written as null.

        Args:
            step: optimiser updates done.
            metrics: numbers by name.
        """
        if self._rows is not None:
            row = {
                "step": int(step),
                **{name: _json_number(value) for name, value in metrics.items()},
            }
            self._rows.write((json.dumps(row, allow_nan=False) + "\n").encode())
            events = self._open_events(step)
            for name, value in metrics.items():
                events.add_scalar(name, float(value), step)

    def note(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Flush and close everything."""
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()
        if self._rows is not None:
            self._rows.close()

    def _open_events(self, step: int) -> "SummaryWriter":
        if self._events is None:
            # It imports PyTorch where that is, for seconds; who reads metrics needs
            # neither.
            from tensorboardX import SummaryWriter
            from tensorboardX.record_writer import register_writer_factory

            register_writer_factory(_EVENTS_PREFIX, _EventFiles())
            # The step in the name: two starts within a second are two files.
            self._events = SummaryWriter(
                f"{_EVENTS_PREFIX}:{self._workdir}",
                purge_step=self._purge_step,
                filename_suffix=f".{step}",
            )
        return self._events

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        is_training = any(name.startswith("train/") for name in metrics)
        shown = {
            name: f"{metrics[key]:.4g}"
            for key, name in TERMINAL_NAMES.items()
            if key in metrics
        }
        numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
        epoch = f"epoch {metrics['epoch']:.2f}  " if "epoch" in metrics else ""
        of_total = f"/{self._total}" if self._total else ""
        line = f"step {step}{of_total}  {epoch}{numbers}"
        self._move_bar(step)
        # The bar has its own time.
        if self._pace is not None and self._bar is None and is_training:
            self._pace.seen(step)
            line += self._pace.left()
        self.note(line)

    def _move_bar(self, step: int) -> None:
        if self._bar is not None and step > self._bar.n:
            self._bar.update(step - self._bar.n)


class _EventFile:
    """TensorBoard's records in a `GrowingFile`: whole, each of them."""

    # tensorboardX hands over a record in pieces: length, checksum, data, checksum.
    PIECES = 4

    def __init__(self, path: str):
        self._file = GrowingFile(Path(path))
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> None:
        self._parts.append(part)
        if len(self._parts) == self.PIECES:
            self._file.write(b"".join(self._parts))
            self._parts = []

    def flush(self) -> None:
        """Nothing: the file's thread writes at once."""

    def close(self) -> None:
        self._file.close()


class _EventFiles:
    """How tensorboardX makes files of names that begin with `_EVENTS_PREFIX`."""

    def open(self, path: str) -> _EventFile:
        return _EventFile(path.partition(":")[2])

    def directory_check(self, path: str) -> None:
        """Nothing: the workdir exists."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, none if there is no such file.

    A last line that a crash cut off is left out.

    Raises:
        InputError: it cannot be read, or another line is not a JSON object with a
            `step`.
    """
    if not path.exists():
        return []
    rows = []
    try:
        text = read_small(path, max_bytes=MAX_METRICS_BYTES).decode(errors="replace")
    except OSError as error:
        raise InputError(
            f"{path}: reading it failed ({error.strerror}), expected the record of a "
            "run, a line for each log; remove it to start the record anew"
        ) from error
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise InputError(
                f"{path}: line {number} is {line[:60]!r}, expected an object with a "
                "step; remove the line, or the file to start its record anew"
            )
        rows.append(row)
    return rows


def truncate_rows(path: Path, step: int) -> None:
    """Keep the rows of a file of JSON lines up to `step`; no file, no change."""
    if path.exists():
        _replace_rows(path, [row for row in read_metrics(path) if row["step"] <= step])


def _replace_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file anew: a crash leaves the old one or the new one."""
    with write_durably(path) as file:
        file.writelines((json.dumps(row) + "\n").encode() for row in rows)


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
