"""What a rule is given of an operation of JAX, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.engines.onnx_graph import Graph, Operand


class Equation(NamedTuple):
    """What a rule needs to know of an equation of a trace.

    Attributes:
        shape: of the result.
        dtype: of the result.
        params: JAX's parameters of the operation.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    params: Mapping[str, Any]


Rule = Callable[[Graph, Sequence[Operand], Equation], Operand]


class Unsupported(Exception):
    """An operation, or a form of it, that no rule is there for."""
