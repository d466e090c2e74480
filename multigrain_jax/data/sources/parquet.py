"""Parquet files of photos, as Hugging Face has data sets: `image` and `label`."""

import functools
import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from multigrain_jax.data.bucket_paths import ADDRESSES
from multigrain_jax.data.sources.packed import Format
from multigrain_jax.data.sources.parquet_pages import (
    SNAPPY,
    UNPACKED,
    Chunk,
    find_values,
    pack_length,
)
from multigrain_jax.data.sources.random_access import Stamp, Window, read_at
from multigrain_jax.data.sources.shard_index import (
    ABSENT,
    NAMES,
    NO_LABELS,
    NUMBERS,
    PLACE,
    ShardIndex,
)
from multigrain_jax.errors import InputError, printable
from multigrain_jax.files import parse_json
from multigrain_jax.remedies import install

IMAGE, LABEL, BYTES = "image", "label", "bytes"
METADATA_KEY = b"huggingface"
ROWS_AT_ONCE = 64
# Row groups that are held where photos cannot be read one by one, in each process.
GROUPS_KEPT = 2
# The photos of a row group are held while they are looked through, up to this size.
KEPT_BYTES = 128 << 20
_CODECS: Mapping[str, str] = {"UNCOMPRESSED": UNPACKED, "LZ4": "lz4_raw"}
_LARGEST = np.iinfo(np.int32).max
_loading = threading.Lock()


def index_parquet(path: str, stamp: Stamp) -> ShardIndex:
    """Where the photos of a Parquet file are, and what their labels are.

    Raises:
        InputError: no such file or columns, damage, or labels that are none.
    """
    pa, pq = _arrow()
    try:
        window = Window(path, stamp=stamp)
        with pq.ParquetFile(_source(path, window)) as file:
            leaf = _image_leaf(path, file.schema_arrow)
            places, codec = _find_places(window, file, leaf)
            labels, texts, kind, remarks = _labels(path, file)
            class_names, more = _class_names(file.schema_arrow.metadata)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{printable(path)}: a Parquet file was expected, and reading it failed: "
            f"{printable(reason)}; copy it again"
        ) from error
    absent = int(np.sum(places["length"] == ABSENT))
    if absent:
        remarks.append(f"{absent} of {len(places)} rows have no photo")
    if not len(places):
        remarks.append("no rows")
    return ShardIndex(
        places=places,
        labels=labels,
        label_texts=texts,
        label_kind=kind,
        codec=codec,
        names=[],
        class_names=class_names,
        remarks=[*remarks, *more],
    )


def read_packed(path: str, stamp: Stamp, place: Any, codec: str) -> bytes:
    """The bytes of one photo that has to be unpacked; OSError if that fails."""
    pa, _ = _arrow()
    try:
        if not place["stored"]:
            group = _row_group(path, stamp, int(place["offset"]))
            return group[int(place["start"])].as_py()
        data = read_at(path, int(place["offset"]), int(place["stored"]), stamp=stamp)
        size, start = int(place["unpacked"]), int(place["start"])
        if codec == SNAPPY:
            data = pack_length(size) + data
        return _unpack(codec, data, size)[start : start + int(place["length"])]
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        raise OSError(f"damaged: {error}") from error


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet files need pyarrow, which is missing ({error}): "
            f"{install('parquet')}"
        ) from error
    return pyarrow, pyarrow.parquet


def _image_leaf(path: str, schema: Any) -> str:
    """The column of the photos' bytes, as PyArrow selects it."""
    pa, _ = _arrow()
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    twice = [name for name in (IMAGE, LABEL) if schema.names.count(name) > 1]
    if IMAGE in schema.names and not twice:
        kind = schema.field(IMAGE).type
        if _is_binary(kind):
            return IMAGE
        inside = list(kind) if pa.types.is_struct(kind) else []
        if any(field.name == BYTES and _is_binary(field.type) for field in inside):
            return f"{IMAGE}.{BYTES}"
    raise InputError(
        f"{printable(path)}: one column {IMAGE!r} of bytes, or of {{bytes, path}}, was "
        f"expected, and {LABEL!r} of numbers or names; found {printable(listed)}; "
        "write the file with these (docs/photos.md)"
    )


def _is_binary(kind: Any) -> bool:
    pa, _ = _arrow()
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _source(path: str, window: Window) -> Any:
    """What PyArrow reads a file from: its path, or of an object the window."""
    pa, _ = _arrow()
    return pa.PythonFile(window.open()) if path.startswith(ADDRESSES) else path


def _find_places(window: Window, file: Any, leaf: str) -> tuple[np.ndarray, str]:
    """Where the photo of each row is, and how the file is packed."""
    metadata = file.metadata
    places = np.zeros(metadata.num_rows, PLACE)
    codec, first = UNPACKED, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(i) for i in range(group.num_columns)]
        (at,) = (i for i, c in enumerate(columns) if c.path_in_schema == leaf)
        column = columns[at]
        compression = str(column.compression)
        kind = _CODECS.get(compression, compression.lower())
        codec = codec if number else kind
        found = {}
        if kind == codec:
            nullable = file.schema.column(at).max_definition_level > 0
            found = _places_of_values(window, _chunk(column, kind, nullable))
        rows = places[first : first + group.num_rows]
        # Where photos cannot be read one by one: the group, its size, and the row.
        rows["offset"], rows["start"] = number, np.arange(len(rows))
        rows["unpacked"] = min(column.total_compressed_size, _LARGEST)
        try:
            for row, value in enumerate(_values(file, number, leaf)):
                if value is None or not len(value):
                    rows[row]["length"] = ABSENT
                    continue
                rows[row]["length"] = len(value)
                place = found.get(hashlib.blake2b(value, digest_size=16).digest())
                if place is not None:
                    rows[row] = place
        except (OSError, ValueError) as error:
            last = first + len(rows) - 1
            raise OSError(f"rows {first} to {last}: {error}") from error
        first += len(rows)
    return places, codec


def _chunk(column: Any, codec: str, nullable: bool) -> Chunk:
    offset = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        offset = min(offset, column.dictionary_page_offset)
    return Chunk(offset, column.total_compressed_size, nullable, codec)


def _places_of_values(window: Window, chunk: Chunk) -> dict[bytes, tuple[int, ...]]:
    """Where each photo of a row group is, by its digest; none of an unknown form."""
    found: dict[bytes, tuple[int, ...]] = {}
    try:
        if chunk.length <= KEPT_BYTES:
            window.keep(chunk.offset, chunk.length)  # PyArrow reads the same
        unpack = functools.partial(_try_to_unpack, chunk.codec)
        for place, value in find_values(window.read, chunk, unpack):
            found[hashlib.blake2b(value, digest_size=16).digest()] = tuple(place)
    except (ValueError, LookupError, TypeError, OverflowError):
        pass  # what PyArrow reads decides; these rows are read by their group
    return found


def _values(file: Any, group: int, leaf: str) -> Iterator[Any]:
    """The photo of each row of a group as a buffer; None for a null."""
    for batch in file.iter_batches(
        batch_size=ROWS_AT_ONCE, row_groups=[group], columns=[leaf], use_threads=False
    ):
        for value in _bytes_of(batch.column(0)):
            yield value.as_buffer() if value.is_valid else None


def _bytes_of(column: Any) -> Any:
    """The bytes in a column of {bytes}, null where the row is; others as they are."""
    import pyarrow.compute

    pa, _ = _arrow()
    if pa.types.is_struct(column.type):
        return pyarrow.compute.struct_field(column, [0])
    return column


def _row_group(path: str, stamp: Stamp, number: int) -> Any:
    """All photos of a row group; the last ones are kept."""
    with _loading:  # one thread reads it, the others find it then
        return _load_row_group(path, stamp, number)


@functools.lru_cache(maxsize=GROUPS_KEPT)
def _load_row_group(path: str, stamp: Stamp, number: int) -> Any:
    _, pq = _arrow()
    read_at(path, 0, 1, stamp=stamp)  # it is the file that was indexed
    with pq.ParquetFile(_source(path, Window(path, stamp=stamp))) as file:
        leaf = _image_leaf(path, file.schema_arrow)
        table = file.read_row_group(number, columns=[leaf], use_threads=False)
        return _bytes_of(table.column(0).combine_chunks())


def _try_to_unpack(codec: str, data: bytes, size: int) -> bytes:
    """`_unpack`, whose errors are told from those of the storage."""
    try:
        return _unpack(codec, data, size)
    except OSError as error:
        raise ValueError(str(error)) from error


def _unpack(codec: str, data: bytes, size: int) -> bytes:
    pa, _ = _arrow()
    return pa.Codec(codec).decompress(data, decompressed_size=size, asbytes=True)


def _labels(path: str, file: Any) -> tuple[np.ndarray, list[str], str, list[str]]:
    """The number of each row's label, the labels as text, their kind, and remarks."""
    import pyarrow.compute

    pa, _ = _arrow()
    schema, rows = file.schema_arrow, file.metadata.num_rows
    if LABEL not in schema.names:
        columns = ", ".join(schema.names)
        remark = f"no column {LABEL!r} among {columns}: its photos have no labels"
        return np.full(rows, ABSENT, np.int32), [], NO_LABELS, [remark]
    column = file.read(columns=[LABEL], use_threads=False).column(0)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_number = pa.types.is_integer(column.type)
    is_name = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not is_number and not is_name and not pa.types.is_null(column.type):
        raise InputError(
            f"{printable(path)}: a column {LABEL!r} of numbers or names was expected, "
            f"found {column.type}; write the file with one"
        )
    if is_name:
        nothing = pyarrow.compute.equal(column, "")
        column = pyarrow.compute.if_else(nothing, None, column)
    encoded = column.combine_chunks().dictionary_encode()
    texts = [str(value) for value in encoded.dictionary.to_pylist()]
    if any("\0" in text for text in texts):
        raise InputError(f"{printable(path)}: a label holds a zero byte; mend it")
    labels = encoded.indices.fill_null(ABSENT).to_numpy(zero_copy_only=False)
    labels = labels.astype(np.int32)
    kind = NO_LABELS if not texts else NUMBERS if is_number else NAMES
    missing = int(np.sum(labels == ABSENT))
    return labels, texts, kind, [f"{missing} rows have no label"] if missing else []


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[list[str], list[str]]:
    """The names of the classes as Hugging Face notes them, and remarks."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return [], []
    try:
        label = parse_json(text.decode())["info"]["features"].get(LABEL) or {}
        names = label.get("names") or []
        if not all(isinstance(name, str) and "\0" not in name for name in names):
            raise ValueError("names that are no text")
        return list(names), []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [], [f"the names of the classes in its metadata cannot be read: {error}"]


PARQUET = Format("parquet", ".parquet", "#", index_parquet, read_packed)
