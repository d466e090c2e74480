"""A trace of some training steps, for XProf and TensorBoard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# Steps before the first one that is traced: compiling and the first batches are over.
STEPS_BEFORE = 10

Step = Callable[[Any, Any], tuple[Any, Any]]


class StepProfile:
    """Traces `num_steps` steps of a run, once; `close` it at the run's end."""

    def __init__(self, folder: Path, *, num_steps: int):
        """Trace into `folder`, from the run's eleventh step on; 0 steps: nothing."""
        self._folder, self._num_steps = folder, num_steps
        self._calls = 0
        self._tracing = False

    def around(self, train_step: Step) -> Step:
        """The step, traced in its turn; what the host does between is in the trace."""
        if self._num_steps == 0:
            return train_step

        def traced(state: Any, batch: Any) -> tuple[Any, Any]:
            if self._calls == STEPS_BEFORE:
                jax.profiler.start_trace(self._folder)
                self._tracing = True
            with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
                result = train_step(state, batch)
            self._calls += 1
            if self._calls == STEPS_BEFORE + self._num_steps:
                jax.block_until_ready(result)
                self.close()
            return result

        return traced

    def close(self) -> None:
        """Write the trace if it is still running."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
