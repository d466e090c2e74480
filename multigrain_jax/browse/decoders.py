"""Processes that decode what comes from outside, each photo within a time limit.

A photo that takes too long, or takes its process down, costs that process and no more.
"""

import contextlib
import io
import multiprocessing
import queue
import signal
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from multigrain_jax.data.decoding import Decoding, UndecodableImageError, decode
from multigrain_jax.data.network_image import network_image
from multigrain_jax.data.watchdog import end_with_parent

# A process imports what it needs first.
START_TIMEOUT_S = 120.0
JPEG_QUALITY = 85


class NetworkJob(NamedTuple):
    """Make an encoded photo what the network takes: uint8 [h, w, 3].

    Attributes:
        data: the file's bytes.
        decoding: how it becomes pixels.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        smallest_side: the backbone's, of the mode "rect".
    """

    data: bytes
    decoding: Decoding
    test_size: int
    test_mode: str
    smallest_side: int


class PictureJob(NamedTuple):
    """Make an encoded photo a JPEG file that any browser shows.

    Attributes:
        data: the file's bytes.
        decoding: how it becomes pixels.
        side: what its longer side is at most.
    """

    data: bytes
    decoding: Decoding
    side: int


class DecodingTimeoutError(UndecodableImageError):
    """A photo took longer than the limit."""


Job = NetworkJob | PictureJob
Answer = tuple[Literal["done", "undecodable"], Any]


class Decoders:
    """Some processes that decode, and a queue before them."""

    def __init__(self, count: int, *, timeout_s: float):
        """Start the processes; the first jobs wait for them.

        Args:
            count: how many.
            timeout_s: how long one photo may take.
        """
        self._timeout_s = timeout_s
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Job] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._attend, daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Any]":
        """Have a job done.

        Returns:
            What the job makes; or UndecodableImageError, where it took too long a
            DecodingTimeoutError.
        """
        future: Future[Any] = Future()
        self._jobs.put((future, job))
        return future

    def close(self) -> None:
        """End the processes once their jobs are done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(self._timeout_s)

    def _attend(self) -> None:
        """Give jobs to one process, and a new process in its place where it ends."""
        process = _Process()
        while (item := self._jobs.get()) is not None:
            future, job = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(process.do(job, timeout_s=self._timeout_s))
            except UndecodableImageError as error:
                future.set_exception(error)
            except Exception as error:
                future.set_exception(
                    UndecodableImageError(f"it could not be decoded: {error}")
                )
            if not process.is_alive():
                process.end()
                process = _Process()
        process.end()


class _Process:
    """One process that decodes, as seen from the server."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs,), daemon=True, name="decoder"
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    def do(self, job: Job, *, timeout_s: float) -> Any:
        """What a job makes."""
        try:
            if not self._is_ready:
                if not self._connection.poll(START_TIMEOUT_S):
                    raise EOFError
                self._connection.recv()
                self._is_ready = True
            self._connection.send(job)
            if not self._connection.poll(timeout_s):
                self._process.kill()
                self._process.join()
                raise DecodingTimeoutError(
                    f"decoding it takes longer than {timeout_s:g} seconds"
                )
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.kill()
            self._process.join()
            raise UndecodableImageError(
                "the process that decoded it has ended; it may take too much memory"
            ) from error
        if kind == "undecodable":
            raise UndecodableImageError(value)
        return value

    def is_alive(self) -> bool:
        """Whether it takes more jobs."""
        return self._process.is_alive()

    def end(self) -> None:
        """End it."""
        self._connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def serve(connection: Connection) -> None:
    """Do jobs until nobody sends any: what such a process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(0, 1)
    with contextlib.suppress(EOFError, OSError):
        connection.send("ready")
        while True:
            connection.send(work(connection.recv()))


def work(job: Job) -> Answer:
    """Do a job: "done" and what it makes, or "undecodable" and why."""
    try:
        if isinstance(job, NetworkJob):
            return "done", _network_input(job)
        return "done", _picture(job)
    except UndecodableImageError as error:
        return "undecodable", str(error)
    except Exception as error:
        return "undecodable", f"{type(error).__name__}: {error}"


def _network_input(job: NetworkJob) -> np.ndarray:
    decoded = network_image(
        job.data,
        job.decoding,
        test_size=job.test_size,
        mode=job.test_mode,
        smallest_side=job.smallest_side,
    )
    return np.asarray(decoded.image)


def _picture(job: PictureJob) -> bytes:
    image = decode(job.data, job.decoding, side=job.side)
    if max(image.size) > job.side:
        scale = job.side / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(
            (size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0
        )
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
