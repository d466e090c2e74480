"""An engine for CPUs that computes a network in JAX's place: ONNX Runtime.

It is given the model that `to_onnx` makes of what JAX would compile, and all cores for
one batch after the other.
"""

import importlib.util
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from multigrain_jax.engines.equation import Unsupported
from multigrain_jax.engines.tracing import to_onnx
from multigrain_jax.errors import InputError
from multigrain_jax.remedies import install
from multigrain_jax.runtime import num_cores

JAX, ONNX_RUNTIME = ENGINES = ("jax", "onnxruntime")
# Of the extra "onnxruntime".
PACKAGES = ("onnx", "onnxruntime")

Arrays = Mapping[str, np.ndarray]
Session = Callable[[Arrays], dict[str, np.ndarray]]
V = TypeVar("V")


def engine_problems(engine: str) -> list[str]:
    """What is in the way of an engine: a line, or none."""
    if engine not in ENGINES:
        return [f"engine: found {engine!r}, expected one of {', '.join(ENGINES)}"]
    if engine == JAX:
        return []
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return [
            f"engine: found {engine!r}, expected {' and '.join(missing)} to be "
            f"installed for it: {install(ONNX_RUNTIME)}"
        ]
    if jax.process_count() > 1:
        return [
            f"engine: found {engine!r} on {jax.process_count()} hosts, expected one; "
            f"{JAX} computes on several"
        ]
    return []


class EngineStep(Generic[V]):
    """A function of a model's arrays and a batch, computed by ONNX Runtime.

    For every new combination of shapes the function is traced and given to the engine,
    with the model's arrays as constants; they are in memory as often as that.
    """

    def __init__(self, function: Callable[[V, Any], Any]):
        """Trace nothing yet.

        Args:
            function: from a model's arrays and a dictionary of arrays [B, …] to such a
                dictionary; what `jax.jit` would compile.

        Raises:
            InputError: the engine cannot be used.
        """
        if problems := engine_problems(ONNX_RUNTIME):
            raise InputError(problems[0])
        self._function = function
        self._variables: V | None = None
        self._sessions: dict[Any, Session] = {}
        self._lock = threading.Lock()

    def __call__(self, variables: V, inputs: Arrays) -> dict[str, np.ndarray]:
        """The function's results; calls from several threads follow one another.

        Args:
            variables: the model's arrays, the same ones in every call.
            inputs: the batch.

        Raises:
            InputError: a network that the engine cannot compute.
        """
        with self._lock:
            if self._variables is None:
                self._variables = variables
            if variables is not self._variables:
                raise ValueError("An engine's step is for the arrays of one model.")
            key = tuple((name, inputs[name].shape) for name in sorted(inputs))
            if key not in self._sessions:
                self._sessions[key] = self._make(variables, inputs)
            return self._sessions[key](inputs)

    def _make(self, variables: V, inputs: Arrays) -> Session:
        shapes = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in inputs.items()
        }
        # As constants of the trace they are known to it.
        try:
            model = to_onnx(lambda batch: self._function(variables, batch), shapes)
        except Unsupported as error:
            raise InputError(
                f"engine: {ONNX_RUNTIME!r} cannot compute this network, found {error}; "
                f"{JAX!r} computes all"
            ) from error
        return open_session(model)


def open_session(model: bytes) -> Session:
    """What computes an ONNX model, on all cores.

    Args:
        model: from `to_onnx`.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports] - of its extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_cores()
    # Threads that wait for work would take the cores that decode photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run
