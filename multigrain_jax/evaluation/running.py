"""Evaluation's programs, as many at once as the devices are fastest with."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.runtime import programs_at_once

# Batches whose outputs are still on the devices: enough to keep them busy.
BATCHES_IN_FLIGHT = 2

T = TypeVar("T")


def run_in_order(
    step: Callable[[T], Any],
    batches: Iterable[T],
    *,
    compiled: set[Any] | None = None,
    at_once: int | None = None,
) -> Generator[Any]:
    """What a step makes of every batch, on the host, in the order of the batches.

    Accelerators are given a few steps ahead, and no more: their batches take memory. A
    CPU runs one step in each of a few threads: the operations of a single one leave its
    cores idle for a third of the time and more.

    Args:
        step: from a batch to a tree of arrays; called from several threads at once.
        batches: on the host; at most two more are taken than are at work.
        compiled: shapes for which the step is compiled, where it is kept for other
            calls; new ones are added.
        at_once: how many threads; None: as many as `programs_at_once` has it.
    """
    at_once = programs_at_once() if at_once is None else at_once
    if at_once == 1:
        yield from _fetched(step(batch) for batch in batches)
        return
    compiled = set() if compiled is None else compiled
    waiting: deque[Future[Any]] = deque()
    config: Any = jax.config  # the checker does not know its keys
    is_x64 = config.jax_enable_x64

    def run(batch: T) -> Any:
        # JAX's settings by a context are the thread's own.
        with jax.enable_x64(is_x64):
            return jax.device_get(step(batch))

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for batch in batches:
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(run, batch))
                # Of a new shape the first compiles: the next would compile it too.
                if (shapes := _shapes(batch)) not in compiled:
                    waiting[-1].exception()
                    compiled.add(shapes)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


def _fetched(outputs: Iterable[Any]) -> Generator[Any]:
    waiting: deque[Any] = deque()
    for output in outputs:
        waiting.append(output)
        if len(waiting) > BATCHES_IN_FLIGHT:
            yield jax.device_get(waiting.popleft())
    while waiting:
        yield jax.device_get(waiting.popleft())


def _shapes(batch: Any) -> tuple[Any, ...]:
    return tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))


def run_in_parts(
    step: Callable[[jax.Array], Any],
    images: jax.Array,
    *,
    compiled: set[Any],
    at_once: int | None = None,
) -> Any:
    """What a step makes of a batch [B, …], of whose rows each thread takes a share.

    Shares are equal, so that they are one program: a number of rows that is no multiple
    of the threads is for fewer of them.

    Args:
        step: from images to a tree of arrays [B, …], row by row.
        images: the batch.
        compiled: as of `run_in_order`; without it no two shares would run at once.
        at_once: as of `run_in_order`.
    """
    at_once = programs_at_once() if at_once is None else at_once
    rows = len(images)
    parts = max(n for n in range(1, max(1, min(at_once, rows)) + 1) if rows % n == 0)
    if parts == 1:
        return step(images)
    shares = jnp.split(images, parts)
    found = list(run_in_order(step, shares, compiled=compiled, at_once=parts))
    return jax.tree.map(lambda *each: jnp.concatenate(each), *found)
