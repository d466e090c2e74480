"""An engine for CPUs that computes a network in JAX's place: ONNX Runtime.

It is given the model that `to_onnx` makes of what JAX would compile, and all cores for
one batch after the other.
"""

import importlib.util
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
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
# As many as a plan of `embed` has canvases at most; each holds the weights.
MOST_SESSIONS = 8

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
    if jax.default_backend() != "cpu":
        return [
            f"engine: found {engine!r}, which computes on the CPU, where JAX has a "
            f"{jax.default_backend()}, expected {JAX!r}; JAX_PLATFORMS=cpu in the "
            "environment leaves that idle"
        ]
    if jax.process_count() > 1:
        return [
            f"engine: found {engine!r} on {jax.process_count()} hosts, expected one; "
            f"{JAX} computes on several"
        ]
    return []


def require_engine(engine: str) -> None:
    """Refuse an engine that cannot be used.

    Raises:
        InputError: another name, or what is in its way.
    """
    if problems := engine_problems(engine):
        raise InputError(problems[0])


class EngineStep(Generic[V]):
    """A function of a model's arrays and a batch, computed by ONNX Runtime.

    For every new combination of shapes the function is traced and given to the engine,
    with the model's arrays as constants: a session, of which the last few are kept.
    """

    def __init__(
        self, function: Callable[[V, Any], Any], *, most_sessions: int = MOST_SESSIONS
    ):
        """Trace nothing yet.

        Args:
            function: from a model's arrays and a dictionary of arrays [B, …] to such a
                dictionary; what `jax.jit` would compile.
            most_sessions: how many are kept, one at least; a caller that comes back to
                more combinations of shapes has sessions made over and over.

        Raises:
            InputError: the engine cannot be used.
        """
        require_engine(ONNX_RUNTIME)
        self._function = function
        self._most_sessions = most_sessions
        self._variables: V | None = None
        self._sessions: OrderedDict[Any, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, variables: V, inputs: Arrays) -> dict[str, np.ndarray]:
        """The function's results; calls from several threads follow one another.

        Args:
            variables: the model's arrays, the same ones in every call.
            inputs: the batch.

        Raises:
            InputError: a network that the engine cannot compute, or a temporary folder
                without room for its weights.
        """
        with self._lock:
            if self._variables is None:
                self._variables = variables
            if variables is not self._variables:
                raise ValueError(
                    "variables: found other arrays than in the first call, expected "
                    "the same ones; make another EngineStep for another model"
                )
            key = tuple((n, inputs[n].shape, inputs[n].dtype) for n in sorted(inputs))
            if key not in self._sessions:
                # First, lest there be one more while the new one is made.
                if len(self._sessions) >= self._most_sessions:
                    self._sessions.popitem(last=False)
                self._sessions[key] = self._make(variables, inputs)
            self._sessions.move_to_end(key)
            return self._sessions[key](inputs)

    def _make(self, variables: V, inputs: Arrays) -> Session:
        shapes = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in inputs.items()
        }
        # As constants of the trace they are known to it.
        try:
            model = to_onnx(lambda batch: self._function(variables, batch), shapes)
            return open_session(model)
        except Unsupported as error:
            raise InputError(
                f"engine: {ONNX_RUNTIME!r} cannot compute this network, found {error}; "
                f"{JAX!r} computes all"
            ) from error


def open_session(model: bytes) -> Session:
    """What computes an ONNX model, on all cores.

    Args:
        model: from `to_onnx`; it is written to the temporary folder for a moment.

    Raises:
        InputError: a temporary folder that cannot be written, or is full.
        Unsupported: a model that the engine refuses.
    """
    import onnxruntime  # pyright: ignore[reportMissingImports] - of its extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_cores()
    # Threads that wait for work would take the cores that decode photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # A session that is given bytes keeps them, beside its own copy of the weights.
        with tempfile.TemporaryDirectory(prefix="multigrain_jax_") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model)
            try:
                session = onnxruntime.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # its exceptions have no base of their own
                raise Unsupported(" ".join(str(error).split())) from error
    except OSError as error:
        raise InputError(_no_room(len(model), error)) from error
    expected = {each.name: tuple(each.shape) for each in session.get_outputs()}

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        found = session.run(list(expected), dict(inputs))
        for (name, shape), array in zip(expected.items(), found, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name}: found {array.shape}, expected {shape}")
        return dict(zip(expected, found, strict=True))

    return run


def _no_room(needed: int, error: OSError) -> str:
    """A line on a temporary folder in which a model of so many bytes could not lie."""
    try:
        folder = tempfile.gettempdir()
        place = f"{folder} has {shutil.disk_usage(folder).free} bytes free"
    except OSError:
        place = "no temporary folder can be written"
    reason = error.strerror or str(error)
    return (
        f"engine: found {ONNX_RUNTIME!r}, which writes the model to the temporary "
        f"folder for a moment, and {place} ({reason}), expected {needed} bytes; make "
        "room, or name another folder by TMPDIR in the environment"
    )
