"""Opens the engine of an approximate index by its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multigrain_jax.descriptors.approximate.engine import Engine
from multigrain_jax.descriptors.approximate.faiss_engine import (
    FaissEngine,
    FaissOptions,
)
from multigrain_jax.descriptors.approximate.milvus_engine import (
    MilvusEngine,
    MilvusOptions,
)
from multigrain_jax.descriptors.approximate.record import Record
from multigrain_jax.errors import InputError

ENGINES = ("faiss", "milvus")


def open_engine(record: Record, folder: Path) -> Engine:
    """The engine that made an index, or is to make it.

    Args:
        record: what index.json says, or is to say.
        folder: of the index.

    Raises:
        InputError: the engine is not installed, or cannot be reached.
    """
    dim, made = record.settings.dim, dict(record.made)
    if record.engine == "faiss":
        options = FaissOptions(**_of(FaissOptions, record.options))
        return FaissEngine(folder, options, dim=dim, made=made)
    if record.engine == "milvus":
        milvus = MilvusOptions(**_of(MilvusOptions, record.options))
        return MilvusEngine(folder, milvus, dim=dim, made=made)
    raise InputError(
        f"{folder}: made by the engine {record.engine!r}, expected one of "
        f"{', '.join(ENGINES)}; make the index anew, into another workdir"
    )


def _of(options: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in options._fields}
