"""A folder with an approximate index: what is in it, and of which descriptors it is.

index.json     what made the index, the shards that it holds, its parts; replaced
last and in one move, so that what it does not name is half done
rows-*.bits    of a part, which rows of its shards the engine holds
part-*.faiss, trained-*.faiss, milvus.db    the engine's own
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multigrain_jax.descriptors.approximate.engine import Part, Stored
from multigrain_jax.descriptors.folder import DescriptorSettings, Shard
from multigrain_jax.errors import InputError
from multigrain_jax.files import (
    PARTIAL_SUFFIX,
    read_json,
    require_content,
    write_durably,
)
from multigrain_jax.remedies import install
from multigrain_jax.trees import json_digest

FORMAT_VERSION = 1
INDEX_FOLDER = "index"  # in the workdir of the task `index`
RECORD_FILE = "index.json"
_OWN_FILES = ("part-*.faiss", "trained-*.faiss", "rows-*.bits", f"*{PARTIAL_SUFFIX}")


class Record(NamedTuple):
    """What index.json says.

    Attributes:
        settings: of the descriptors.
        engine: its name.
        options: what the index was asked to be, as the recipe has it.
        made: what the engine decided, for later runs.
        shards: of the descriptor folder as they were when they were indexed.
        mtimes_ns: of these shards' files.
        parts: ranges of them, one behind the other.
        pending: the part that an engine without atomic updates is changing; None.
    """

    settings: DescriptorSettings
    engine: str
    options: dict[str, Any]
    made: dict[str, Any]
    shards: tuple[Shard, ...] = ()
    mtimes_ns: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    pending: int | None = None


def find_index(path: Path) -> Path:
    """The folder that a path means: itself, or the one in a workdir of `index`."""
    inside = path / INDEX_FOLDER
    return inside if (inside / RECORD_FILE).exists() else path


def read_record(folder: Path) -> Record:
    """What index.json of a folder says.

    Raises:
        InputError: no such file, one of another format, or one that was changed.
    """
    path = folder / RECORD_FILE
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: an approximate index was expected, and reading {RECORD_FILE} "
            f"failed: {error}; the task `index` makes one (configs/index.py)"
        ) from error
    version = values.pop("format_version", None) if isinstance(values, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise InputError(
            f"{path}: format_version {version} found, {FORMAT_VERSION} expected; make "
            "the index anew, into another workdir"
        )
    try:
        if values.pop("digest", None) != json_digest(values):
            raise ValueError("its digest does not fit what it says")
        return _record(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not what the task `index` writes ({type(error).__name__}: "
            f"{error}); undo what was edited, or remove {folder} and run `index` again"
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Replace index.json, and then remove what it does not name any more."""
    values = {
        **record._asdict(),
        "settings": record.settings._asdict(),
        "shards": [shard._asdict() for shard in record.shards],
        "parts": [
            {**part._asdict(), "stored": part.stored._asdict()} for part in record.parts
        ],
    }
    # As it is read: no tuples, and no infinity.
    values["settings"]["pooling_exponent"] = str(record.settings.pooling_exponent)
    values = json.loads(json.dumps(values))
    sealed = {"format_version": FORMAT_VERSION, **values, "digest": json_digest(values)}
    with write_durably(folder / RECORD_FILE) as file:
        file.write((json.dumps(sealed, indent=1) + "\n").encode())
    _remove_others(folder, record)


def write_rows(folder: Path, held: np.ndarray) -> tuple[str, str]:
    """Write which rows a part holds, bool [n]; the file's name and digest."""
    data = np.packbits(held).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    name = f"rows-{digest[:32]}.bits"
    # Named by its content: what is there already is the same.
    if not _is(folder / name, data):
        with write_durably(folder / name) as file:
            file.write(data)
    return name, digest


def read_rows(folder: Path, part: Part, num_rows: int) -> np.ndarray:
    """Which rows a part holds, bool [num_rows].

    Raises:
        InputError: the file is not what was written.
    """
    path = folder / part.rows_file
    try:
        require_content(path)
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    if hashlib.sha256(data).hexdigest() != part.rows_digest:
        raise damaged(path, "its content has changed since it was written")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=num_rows).astype(bool)


def damaged(path: Path, reason: str) -> InputError:
    """The error of a file of the index that is not as it was written."""
    return InputError(
        f"{path}: {reason}; make the index anew with --config configs/index.py "
        "--config.rebuild=True"
    )


def not_installed(
    engine: str, package: str, *, folder: Path, made: Mapping[str, Any], instead: str
) -> InputError:
    """The error of an engine whose package is not there.

    Args:
        engine: its name.
        package: what cannot be imported.
        folder: of the index.
        made: what the engine decided; empty of an index that is yet to be made.
        instead: another engine.
    """
    expected = f"expected {package} to be installed for it: {install(engine)}, or"
    if not made:
        return InputError(
            f"engine: found {engine!r}, {expected} choose --config.engine={instead}"
        )
    # A search has no choice: its own key `engine` is that of the network.
    return InputError(
        f"{folder}: made by the engine {engine!r}, {expected} {made_anew_by(instead)}"
    )


def made_anew_by(engine: str) -> str:
    """What to do about an index that its own engine cannot open."""
    return (
        "make the index anew with --config configs/index.py "
        f"--config.engine={engine} --config.rebuild=True"
    )


def is_utf8(path: Path) -> bool:
    """Whether a library in C can be told a path."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _record(values: dict[str, Any]) -> Record:
    made_with = dict(values["settings"])
    made_with["pooling_exponent"] = float(made_with["pooling_exponent"])
    made_with["test_sizes"] = tuple(made_with["test_sizes"])
    parts = tuple(
        Part(**{**part, "stored": Stored(**part["stored"])}) for part in values["parts"]
    )
    ends = [0, *(part.end_shard for part in parts)]
    if [part.first_shard for part in parts] != ends[:-1]:
        raise ValueError("its parts do not follow each other")
    if not ends[-1] == len(values["shards"]) == len(values["mtimes_ns"]):
        raise ValueError("its parts are not of its shards")
    return Record(
        **{
            **values,
            "settings": DescriptorSettings(**made_with),
            "shards": tuple(Shard(**shard) for shard in values["shards"]),
            "mtimes_ns": tuple(values["mtimes_ns"]),
            "parts": parts,
        }
    )


def _remove_others(folder: Path, record: Record) -> None:
    known = {
        *(part.rows_file for part in record.parts),
        *(part.stored.file for part in record.parts),
        record.made.get("file"),
    }
    for path in _own_files(folder):
        if path.name not in known and not path.is_dir():
            path.unlink(missing_ok=True)


def _own_files(folder: Path) -> Iterable[Path]:
    for pattern in _OWN_FILES:
        yield from folder.glob(pattern)


def _is(path: Path, data: bytes) -> bool:
    try:
        require_content(path)
        return path.read_bytes() == data
    except OSError:
        return False
