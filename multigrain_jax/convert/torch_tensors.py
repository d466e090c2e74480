"""What the pickles of torch.save may name, and the arrays that their tensors become."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from multigrain_jax.convert.pickle_machine import (
    Name,
    Rules,
    UnreadableError,
    expect,
    make_dict,
    make_set,
)
from multigrain_jax.data.benchmarks.plain_pickle import (
    KNOWN,
    PickledArray,
    PickledDtype,
)

DTYPES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
_REBUILD = "torch._utils._rebuild_tensor_v2"
# All that a file may name besides the classes of `attribute_classes`, with what answers
# a call of it. None: it may be named only.
CALLS: dict[str, Callable[..., Any] | None] = {
    **dict.fromkeys(DTYPES),
    **{f"torch.{dtype.name}": None for dtype in DTYPES.values()},
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": tuple,
    "torch.device": lambda kind, *_: expect(kind, str),
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    # Lists and dictionaries in TorchScript archives.
    "torch.jit._pickle.restore_type_tag": lambda content, _: content,
    "torch.jit._pickle.build_intlist": lambda content: content,
    "torch.jit._pickle.build_boollist": lambda content: content,
    "torch.jit._pickle.build_doublelist": lambda content: content,
    "torch.jit._pickle.build_tensorlist": lambda content: content,
    # Containers of Python, and what defaultdict makes of a missing key.
    "collections.OrderedDict": make_dict,
    "collections.Counter": make_dict,
    "collections.defaultdict": lambda *_: {},
    "__builtin__.set": make_set,
    **dict.fromkeys(f"__builtin__.{name}" for name in ("dict", "float", "int", "list")),
    # NumPy's arrays and numbers: `PickledArray`, and numbers of Python.
    **{".".join(names): stand_in for names, stand_in in KNOWN.items()},
}


class _Storage(NamedTuple):
    """A storage as a tensor needs it; without data while sizes are collected."""

    dtype: np.dtype
    num_bytes: int
    data: np.ndarray | None


class Tensors:
    """Answers a pickle's references to storages and its calls for tensors.

    Args:
        load: (key, count, bytes of one number) -> the storage as bytes, uint8 [N];
            None: only sizes are asked for, and no tensors come out.
    """

    def __init__(self, load: Callable[[str, int, int], np.ndarray | None]):
        self._load = load
        self._loaded: dict[str, np.ndarray | None] = {}

    def rules(self, attribute_classes: Sequence[str]) -> Rules:
        """The rules for the pickle whose tensors these are."""
        calls = {
            **CALLS,
            _REBUILD: self._rebuild,
            "torch._utils._rebuild_tensor": self._rebuild,
            "torch._tensor._rebuild_from_type_v2": self._rebuild_with_attributes,
        }
        stateful = (PickledArray, PickledDtype)
        return Rules(calls, self._refer, attribute_classes, stateful)

    def _refer(self, reference: Any) -> _Storage:
        kind, name, key, device, count, *view = expect(reference, tuple)
        if kind != "storage" or device == "meta" or view not in ([], [None]):
            raise UnreadableError("a reference to something other than a stored tensor")
        dtype = DTYPES[expect(name, Name).dotted]
        num_bytes = _size(count) * dtype.itemsize
        if expect(key, str) not in self._loaded:
            self._loaded[key] = self._load(key, count, dtype.itemsize)
        data = self._loaded[key]
        if data is not None and len(data) != num_bytes:
            raise UnreadableError(
                f"storage {key} has {len(data)} bytes, expected {num_bytes}"
            )
        return _Storage(dtype, num_bytes, data)

    def _rebuild(
        self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> np.ndarray | None:
        """An array over the storage; `rest`: requires_grad, hooks, flags."""
        dtype, num_bytes, data = expect(storage, _Storage)
        if not len(size) == len(stride) <= 64:
            raise UnreadableError(f"{len(size)} sides and {len(stride)} strides")
        if len(rest) > 2 and any(rest[2].values()):
            raise UnreadableError("a tensor that is to be negated or conjugated")
        shape, steps = tuple(map(_size, size)), tuple(map(_size, stride))
        count = prod(shape)
        if count == 0:
            return np.empty(shape, dtype)
        end = _size(offset) + 1
        end += sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
        # An expanded tensor would make any number of bytes out of a few.
        if max(end, count) * dtype.itemsize > num_bytes:
            raise UnreadableError(
                f"a tensor of shape {list(shape)} with strides {list(steps)} does not "
                f"fit into its storage of {num_bytes} bytes"
            )
        if data is None:
            return None
        strides = [step * dtype.itemsize for step in steps]
        return np.ndarray(shape, dtype, data, offset * dtype.itemsize, strides)

    def _rebuild_with_attributes(self, call: Any, _: Any, given: Any, *__: Any) -> Any:
        if call != Name(_REBUILD):
            raise UnreadableError("a tensor of a class of its own")
        return self._rebuild(*given)


def _size(value: Any) -> int:
    if not 0 <= expect(value, int) < 2**63:
        raise UnreadableError("a size out of range")
    return value
