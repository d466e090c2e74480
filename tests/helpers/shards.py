"""Large files of photos, as tests write them: tar shards and Parquet files."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of files with these names and contents, in this order; `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(
    photos: Sequence[bytes], labels: Sequence[object], *, suffix: str = "jpg"
) -> list[tuple[str, bytes]]:
    """The members of samples `0000`, `0001`, …: a photo and its .cls each."""
    members = []
    for number, (photo, label) in enumerate(zip(photos, labels, strict=True)):
        members.append((f"{number:04d}.{suffix}", photo))
        members.append((f"{number:04d}.cls", str(label).encode()))
    return members


def write_parquet(
    path: Path,
    photos: Sequence[bytes | None],
    labels: Sequence[Any] | None,
    *,
    class_names: Sequence[str] = (),
    names: tuple[str, str] = ("image", "label"),
    label_type: Any = None,
    binary: bool = False,
    **options: Any,
) -> Path:
    """A Parquet file of photos as Hugging Face writes them; `path`.

    Args:
        path: of the file.
        photos: their bytes; None is a null.
        labels: of each; None: there is no such column.
        class_names: of the ClassLabel, where there is to be one.
        names: of the two columns.
        label_type: PyArrow's; None: what it takes by itself.
        binary: whether photos are bytes, and no {bytes, path}.
        options: of `pyarrow.parquet.write_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    kind: Any = pa.binary()
    rows: list[Any] = list(photos)
    if not binary:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [
            None if photo is None else {"bytes": photo, "path": f"{number}.jpg"}
            for number, photo in enumerate(photos)
        ]
    columns: dict[str, Any] = {names[0]: pa.array(rows, kind)}
    features: dict[str, Any] = {names[0]: {"_type": "Image"}}
    if labels is not None:
        columns[names[1]] = pa.array(labels, label_type)
        if class_names:
            label = {"names": list(class_names), "_type": "ClassLabel"}
            features[names[1]] = label
    table = pa.table(columns)
    info: Mapping[str, Any] = {"info": {"features": features}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, **options)
    return path
