"""Fetches what will be read soon, many at once: each answer of a bucket takes its time.

The threads belong to one process, and end with it or with their work: an answer that
never comes keeps nobody from leaving.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, Queue

THREADS = 16
# What is read and not taken yet; a single one may be larger.
MOST_BYTES = 64 << 20
# Of more than these the earliest are read when they are taken.
MOST_ASKED = 4096
# A thread that has nothing to do for so long ends.
IDLE_S = 30.0


class ReadAhead:
    """Reads by numbers, ahead of their use."""

    def __init__(self, read: Callable[[int], bytes], size: Callable[[int], int]):
        """Start no thread yet.

        Args:
            read: reads one, in several threads at once.
            size: how many bytes that will be.
        """
        self._read, self._size = read, size
        self._lock = threading.Lock()
        self._asked: deque[int] = deque(maxlen=MOST_ASKED)
        self._begun: dict[int, tuple[int, Future[bytes]]] = {}
        self._bytes = 0
        # A SimpleQueue can wait without end where several threads take from it with a
        # time limit.
        self._queue: Queue[tuple[int, Future[bytes]]] = Queue()
        self._num_threads = 0

    def ask(self, numbers: Iterable[int]) -> None:
        """Begin to read these, in their order, as far as there is room for them."""
        with self._lock:
            self._asked.extend(numbers)
            self._begin()

    def take(self, number: int) -> bytes:
        """What `read` returns or raises; it is read once for each time it is asked."""
        with self._lock:
            size, future = self._begun.pop(number, (0, None))
            self._bytes -= size
            if future is None and number in self._asked:
                self._asked.remove(number)
            self._begin()
        # One that nobody works on yet is read here and now.
        if future is None or future.cancel():
            return self._read(number)
        return future.result()

    def _begin(self) -> None:
        while self._asked and self._has_room(self._size(self._asked[0])):
            number = self._asked.popleft()
            if number in self._begun:
                continue
            future: Future[bytes] = Future()
            size = self._size(number)
            self._begun[number] = size, future
            self._bytes += size
            self._queue.put((number, future))
            if self._num_threads < THREADS:
                self._num_threads += 1
                threading.Thread(target=self._work, daemon=True).start()

    def _has_room(self, size: int) -> bool:
        return not self._begun or self._bytes + size <= MOST_BYTES

    def _work(self) -> None:
        while True:
            try:
                number, future = self._queue.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if not self._queue.empty():
                        continue
                    self._num_threads -= 1
                    return  # else no source would ever be let go
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._read(number))
                except BaseException as error:
                    future.set_exception(error)
            del future  # with the bytes, until the next one comes
