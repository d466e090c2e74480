"""Photos that arrive together go through the network in one batch."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from multigrain_jax.engines.sessions import JAX
from multigrain_jax.evaluation.engine_step import embed_step_of
from multigrain_jax.mesh import make_mesh, put_replicated, put_whole_batch
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.runtime import images_at_once, programs_at_once

# Of the mode "rect": the shorter side of the canvases, as a share of the longer one.
CANVAS_SHARES = (0.75, 1.0)
# Each batch size is so many times the next smaller one.
BATCH_STEP = 4


class Embedding(NamedTuple):
    """What the network makes of one photo.

    Attributes:
        descriptor: float32 [D], of unit length.
        logits: float32 [classes]; None of a model without a classifier.
    """

    descriptor: np.ndarray
    logits: np.ndarray | None


class _Waiting(NamedTuple):
    image: np.ndarray
    canvas: tuple[int, int]
    future: Future[Embedding]


class Embedder:
    """Embeds photos, as many at once as are waiting, in a few compiled shapes.

    Attributes:
        canvases: heights and widths that are compiled.
        batch_sizes: ascending, that are compiled for each canvas.
    """

    def __init__(
        self,
        opened: OpenedModel,
        *,
        test_size: int,
        test_mode: str,
        batch_size: int,
        on_batch: Callable[[int, float], None] = lambda count, seconds: None,
    ):
        """Put the model on the devices.

        Args:
            opened: the model.
            test_size: S, in pixels.
            test_mode: "square" or "rect".
            batch_size: the most photos at once; a CPU takes fewer large ones.
            on_batch: told how many photos a batch had, and its seconds.
        """
        self._mesh = make_mesh()
        self._variables = put_replicated(self._mesh, opened.variables)
        self._with_sizes = test_mode == "rect"
        self._on_batch = on_batch
        # Another engine takes all cores for one batch.
        self._at_once = programs_at_once() if opened.engine == JAX else 1
        self.canvases = canvases(test_size, test_mode, opened.backbone.smallest_side)
        self.batch_sizes = batch_sizes(
            images_at_once(batch_size, test_size), self._mesh.size
        )
        self._step = embed_step_of(
            opened.engine,
            opened.graphdef,
            backbone=opened.backbone,
            mesh=self._mesh,
            num_shapes=len(self.canvases) * len(self.batch_sizes),
        )
        self._arrivals: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Compile every shape, and take photos from now on."""
        for height, width in self.canvases:
            for size in self.batch_sizes:
                self._run([np.zeros((height, width, 3), np.uint8)], size)
        self._thread.start()

    def submit(self, image: np.ndarray) -> "Future[Embedding]":
        """Have a photo embedded.

        Args:
            image: uint8 [h, w, 3], as `eval_transform` makes it.
        """
        future: Future[Embedding] = Future()
        canvas = next(
            (height, width)
            for height, width in self.canvases
            if height >= image.shape[0] and width >= image.shape[1]
        )
        self._arrivals.put(_Waiting(image, canvas, future))
        return future

    def close(self) -> None:
        """Finish what is waiting, and take no more."""
        self._arrivals.put(None)
        self._thread.join()

    def _work(self) -> None:
        waiting: deque[_Waiting] = deque()
        is_open, free = True, threading.Semaphore(self._at_once)
        with ThreadPoolExecutor(self._at_once) as pool:
            while is_open or waiting:
                # Who arrives until a thread is free goes into the same batch.
                free.acquire()
                if not waiting:
                    arrived = self._arrivals.get()
                    if arrived is None:
                        break
                    waiting.append(arrived)
                while not self._arrivals.empty():
                    arrived = self._arrivals.get()
                    if arrived is None:
                        is_open = False
                    else:
                        waiting.append(arrived)
                batch = take_batch(waiting, self.batch_sizes[-1])
                done = pool.submit(self._embed, batch)
                done.add_done_callback(lambda _: free.release())

    def _embed(self, batch: Sequence[_Waiting]) -> None:
        # Nobody waits any more for what a server that ends has cancelled.
        batch = [w for w in batch if w.future.set_running_or_notify_cancel()]
        started = time.perf_counter()
        try:
            found = self._run([each.image for each in batch]) if batch else []
            for each, embedding in zip(batch, found, strict=True):
                each.future.set_result(embedding)
        except Exception as error:  # such as no memory on the device
            for each in batch:
                if not each.future.done():
                    each.future.set_exception(error)
        if batch:
            self._on_batch(len(batch), time.perf_counter() - started)

    def _run(
        self, images: Sequence[np.ndarray], batch_size: int | None = None
    ) -> list[Embedding]:
        """The embeddings of images that fit one canvas, the smallest that holds all."""
        count = len(images)
        height, width = np.max([image.shape[:2] for image in images], axis=0)
        canvas = next((h, w) for h, w in self.canvases if h >= height and w >= width)
        size = batch_size or next(n for n in self.batch_sizes if n >= count)
        batch = {
            "image": np.zeros((size, *canvas, 3), np.uint8),
            "label": np.full(size, -1, np.int32),
            "index": np.arange(size, dtype=np.int32),
            "mask": np.arange(size) < count,
            "bad": np.zeros(size, bool),
        }
        sizes = np.full((size, 2), canvas, np.int32)
        for row, image in enumerate(images):
            sizes[row] = image.shape[:2]
            batch["image"][row, : image.shape[0], : image.shape[1]] = image
        if self._with_sizes:
            batch["size"] = sizes
        output, _ = self._step(self._variables, put_whole_batch(self._mesh, batch))
        output = jax.device_get(output)
        descriptors = np.asarray(output.normalized_embedding, np.float32)
        logits = None
        if output.logits is not None:
            logits = np.asarray(output.logits, np.float32)
        return [
            Embedding(descriptors[row], None if logits is None else logits[row])
            for row in range(count)
        ]


def canvases(
    test_size: int, test_mode: str, smallest_side: int
) -> list[tuple[int, int]]:
    """The heights and widths that photos are put on, the smaller ones first.

    Args:
        test_size: S, in pixels.
        test_mode: "square": S x S; "rect": the longer side is S.
        smallest_side: what the shorter side of a "rect" photo has at least.
    """
    if test_mode == "square":
        return [(test_size, test_size)]
    shapes: list[tuple[int, int]] = []
    for share in CANVAS_SHARES:
        side = max(smallest_side, math.ceil(share * test_size))
        longer = max(side, test_size)
        for shape in ((side, longer), (longer, side)):
            if shape not in shapes:
                shapes.append(shape)
    return shapes


def batch_sizes(largest: int, num_devices: int) -> list[int]:
    """Ascending sizes of batches, multiples of the devices; the last is `largest`."""
    largest = max(num_devices, largest // num_devices * num_devices)
    sizes, size = [], num_devices
    while size < largest:
        sizes.append(size)
        size *= BATCH_STEP
    return [*sizes, largest]


def take_batch(waiting: "deque[_Waiting]", largest: int) -> list[_Waiting]:
    """Remove the first that waits, and those behind it that share its canvas."""
    canvas = waiting[0].canvas
    batch = [each for each in waiting if each.canvas == canvas][:largest]
    taken = {id(each) for each in batch}
    rest = [each for each in waiting if id(each) not in taken]
    waiting.clear()
    waiting.extend(rest)
    return batch
