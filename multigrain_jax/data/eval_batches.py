"""Evaluation batches: every image once, in batches of a few fixed shapes."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from multigrain_jax.data.canvases import (
    choose_canvases,
    group_by_canvas,
    smallest_canvases,
)
from multigrain_jax.data.crops import resized_size
from multigrain_jax.data.decoding import UndecodableImageError, encoded_size
from multigrain_jax.data.patience import patiently
from multigrain_jax.data.reading import HostBatch, Reading, iterate, read_for_network
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.data.watchdog import stalled

TEST_MODES = ("square", "rect")
HEADER_THREADS = 16


@dataclass(frozen=True)
class EvalPlan:
    """Which images form which batch, known before any of them is decoded.

    Attributes:
        rows: int32 [batches, B], indices of the source; -1 is padding.
        shapes: int32 [batches, 2], height and width of each batch's canvas.
        wasted_fraction: share of all canvases' pixels that belongs to no image.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        smallest_side: what the shorter side of a "rect" image has at least.
    """

    rows: np.ndarray
    shapes: np.ndarray
    wasted_fraction: float
    test_size: int
    test_mode: str
    smallest_side: int

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self.rows)

    def __str__(self) -> str:
        """The shapes and the waste, in a line."""
        shapes, counts = np.unique(self.shapes, axis=0, return_counts=True)
        listed = ", ".join(
            f"{height}x{width} ({count})"
            for (height, width), count in zip(shapes, counts, strict=True)
        )
        return (
            f"{np.sum(self.rows >= 0)} images in {len(self)} batches of "
            f"{self.rows.shape[1]}; compiled shapes (batches): {listed}; "
            f"{self.wasted_fraction:.1%} of the pixels wasted"
        )


def plan_batches(
    source: ImageSource,
    *,
    test_size: int,
    test_mode: str,
    batch_size: int,
    smallest_side: int,
    timeout_s: float,
    indices: Sequence[int] | np.ndarray | None = None,
    measured: np.ndarray | None = None,
) -> EvalPlan:
    """Put images that are evaluated alike into the same batches.

    "square" takes them in order. "rect" reads every image's header, chooses
    a few canvas shapes and takes the images of each shape in order.

    Args:
        source: the images.
        test_size: S, in pixels.
        test_mode: "square": S x S from the centre; "rect": the whole image, longer
            side S.
        batch_size: rows per batch; what no image fills is padding.
        smallest_side: what the shorter side of a "rect" image has at least: the
            backbone's.
        timeout_s: how long to wait for the next header.
        indices: which images; None is all.
        measured: what `measured_sizes` says of them, where that is known.

    Raises:
        DataStalledError: no header came in time.
    """
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices)
    if test_mode == "square" or not len(chosen):
        canvases = np.array([[test_size, test_size]], np.int32)
        sizes = np.repeat(canvases, len(chosen), axis=0)
    else:
        if measured is None:
            measured = measured_sizes(
                source,
                chosen,
                test_size=test_size,
                smallest_side=smallest_side,
                timeout_s=timeout_s,
            )
        sizes = _with_unreadable(measured, test_size)
        canvases = choose_canvases(sizes)
    batches = group_by_canvas(smallest_canvases(sizes, canvases), canvases, batch_size)
    rows = np.full((len(batches), batch_size), -1, np.int32)
    for row, (_, members) in zip(rows, batches, strict=True):
        row[: len(members)] = chosen[members]
    shapes = canvases[[canvas for canvas, _ in batches]]
    return EvalPlan(
        rows=rows,
        shapes=shapes,
        wasted_fraction=_wasted_fraction(shapes, batch_size, sizes),
        test_size=test_size,
        test_mode=test_mode,
        smallest_side=smallest_side,
    )


def plan_ordered_batches(
    indices: Sequence[int] | np.ndarray,
    *,
    test_size: int,
    batch_size: int,
    smallest_side: int,
    measured: np.ndarray,
) -> EvalPlan:
    """Batches of whole ("rect") images that follow each other in a given order.

    Each batch lies on the smallest of a few canvases that holds all its images.
    Arguments as of `plan_batches`.
    """
    chosen = np.asarray(indices)
    sizes = _with_unreadable(measured, test_size)
    rows = np.full((-(-len(chosen) // batch_size), batch_size), -1, np.int32)
    rows.reshape(-1)[: len(chosen)] = chosen
    starts = range(0, len(chosen), batch_size)
    boxes = np.array(
        [sizes[start : start + batch_size].max(axis=0) for start in starts]
    )
    canvases = choose_canvases(boxes)
    shapes = canvases[smallest_canvases(boxes, canvases)]
    return EvalPlan(
        rows=rows,
        shapes=shapes,
        wasted_fraction=_wasted_fraction(shapes, batch_size, sizes),
        test_size=test_size,
        test_mode="rect",
        smallest_side=smallest_side,
    )


def at_other_size(plan: EvalPlan, *, test_size: int) -> EvalPlan:
    """The same batches, row by row, of images of another size.

    A canvas depends on that of its own batch alone, so that a part of the batches lies
    on the same ones. The share of wasted pixels is taken to be that of the plan.

    Args:
        plan: from `plan_batches`.
        test_size: the other S, in pixels.
    """
    if plan.test_mode == "square":
        shapes = np.full_like(plan.shapes, test_size)
    else:
        # Sides are whole numbers, cut off: that of a canvas was below it plus one.
        sides = -(-test_size * (plan.shapes.astype(np.int64) + 1) // plan.test_size)
        shapes = np.clip(sides, plan.smallest_side, None)
        shapes = np.minimum(shapes, max(test_size, plan.smallest_side))
    return replace(plan, shapes=shapes.astype(np.int32), test_size=test_size)


def without_first(plan: EvalPlan, count: int) -> EvalPlan:
    """The plan without the first `count` of its images; the batches stay the same."""
    rows = plan.rows.copy()
    flat = rows.reshape(-1)
    flat[np.flatnonzero(flat >= 0)[:count]] = -1
    kept = (rows >= 0).any(axis=1)
    return replace(plan, rows=rows[kept], shapes=plan.shapes[kept])


def _wasted_fraction(shapes: np.ndarray, batch_size: int, sizes: np.ndarray) -> float:
    computed = batch_size * shapes.astype(np.int64).prod(axis=1).sum()
    used = sizes.astype(np.int64).prod(axis=1).sum()
    return float(1 - used / max(1, computed))


def make_eval_batches(
    source: ImageSource, plan: EvalPlan, *, reading: Reading
) -> Generator[HostBatch]:
    """The batches of a plan, in its order.

    Args:
        source: the images that were planned.
        plan: from `plan_batches`.
        reading: how batches are read ahead.

    Yields:
        `image` uint8 [B, H, W, 3], `label` int32 [B], `index` int32 [B] (-1: padding),
        `mask` bool [B] (False: padding), `bad` bool [B] (unreadable: zeros) and
        `noted` bool [B] (there is something to say of it); in "rect" mode also `size`
        int32 [B, 2], each image's height and width in the top-left corner of its
        canvas.
    """
    largest = int(plan.shapes.astype(np.int64).prod(axis=1).max(initial=0))
    return iterate(
        _Eval(source, plan).batch,
        range(len(plan)),
        batch_bytes=3 * plan.rows.shape[1] * largest,
        photo_bytes=source.decoding.max_bytes,
        reading=reading,
    )


@dataclass(frozen=True)
class _Eval:
    """Makes batches: images on their canvas, and padding."""

    source: ImageSource
    plan: EvalPlan

    def batch(self, number: int) -> HostBatch:
        """Batch `number` of the plan; every image is written to its place at once."""
        rows, shape = self.plan.rows[number], self.plan.shapes[number]
        filled = rows >= 0
        images = np.zeros((len(rows), *shape, 3), np.uint8)
        labels = np.full(len(rows), -1, np.int32)
        labels[filled] = self.source.labels[rows[filled]]
        sizes = np.tile(shape.astype(np.int32), (len(rows), 1))
        bad, noted = np.zeros((2, len(rows)), bool)
        self.source.ask_for(rows[filled].tolist())
        for row in np.flatnonzero(filled):
            try:
                sizes[row], noted[row] = self._write(int(rows[row]), images[row])
            except (OSError, UndecodableImageError):
                bad[row] = True
        return {
            "image": images,
            "label": labels,
            "index": rows,
            "mask": filled,
            "bad": bad,
            "noted": noted,
            **({"size": sizes} if self.plan.test_mode == "rect" else {}),
        }

    def _write(self, index: int, canvas: np.ndarray) -> tuple[tuple[int, int], bool]:
        """Write an image to the corner of its canvas.

        Returns:
            Its height and width, and whether there is something to say of it.
        """
        plan = self.plan
        decoded = read_for_network(
            self.source,
            index,
            test_size=plan.test_size,
            mode=plan.test_mode,
            smallest_side=plan.smallest_side,
        )
        image = np.asarray(decoded.image)
        height, width, _ = image.shape
        corner = canvas[:height, :width]
        if corner.shape != image.shape:
            raise UndecodableImageError(
                f"{image.shape[:2]} after resizing, {canvas.shape[:2]} when it was "
                "planned: the file was changed"
            )
        corner[:] = image
        return (height, width), bool(decoded.notes)


def measured_sizes(
    source: ImageSource,
    indices: np.ndarray,
    *,
    test_size: int,
    smallest_side: int,
    timeout_s: float,
) -> np.ndarray:
    """Height and width of each "rect" image after resizing, by its header.

    Arguments as of `plan_batches`.

    Returns:
        int32 [N, 2]; zeros of images that cannot be read.

    Raises:
        DataStalledError: no header came in time.
    """

    def encoded(index: int) -> tuple[int, int]:
        with source.open(index) as file:
            return encoded_size(file, source.decoding)

    def measure(index: int) -> tuple[int, int]:
        try:
            size = patiently(lambda: encoded(index))
        except (OSError, UndecodableImageError):
            return 0, 0
        width, height = resized_size(
            *size, test_size=test_size, mode="rect", smallest_side=smallest_side
        )
        return height, width

    pool = ThreadPoolExecutor(HEADER_THREADS)
    try:
        headers = [pool.submit(measure, int(index)) for index in indices]
        sizes = [header.result(timeout_s) for header in headers]
    except TimeoutError as error:
        raise stalled("image header", timeout_s) from error
    finally:
        # A thread that hangs in the file system is left behind.
        pool.shutdown(wait=False, cancel_futures=True)
    return np.array(sizes, np.int32).reshape(-1, 2)


def _with_unreadable(measured: np.ndarray, test_size: int) -> np.ndarray:
    """Sizes of all images: an unreadable one is a bad row, on whatever canvas."""
    readable = np.any(measured, axis=1)
    default = measured[readable][0] if readable.any() else (test_size, test_size)
    return np.where(readable[:, None], measured, np.array(default, np.int32))
