"""The same photos as a folder, ArrayRecord, Parquet and tar: rates and memory.

Training batches of this package, as in measure/input.py, of JPEG files of 500 x 375;
the formats take turns, round by round, so that what else the machine does is shared.
"reads/s" is the bytes alone, in random order, by one thread, from the page cache.
Parquet is written as Hugging Face does (Snappy, 100 rows a group), and without
compression; "by group" is what reading a row group for each photo would be.

With --rows, what a source of so many rows of 2 kB takes: the first time it is opened
and the second, memory of a process that opens it and reads 1 000 rows, over that of one
that has only imported the code, and what is sent to each reading process.

    pip install -e '.[quickstart,parquet]'
    python measure/formats.py
    python measure/formats.py --rows 100000 --num-photos 0
"""

import argparse
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.arguments import at_least, positive
from measure.input import RESIZES, Rate, measure, own_batches, write_photos
from measure.machine import print_machine
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.sources.open import open_source
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.terminal import outlive_readers

PACKAGES = [
    "pyarrow",
    "array-record",
    "tensorflow-datasets",
    "pillow",
    "numpy",
    "grain",
]
ROW_BYTES = 2000
ROWS_PER_FILE = 10_000
CLASSES = 10
Row = tuple[bytes, int]
# How each way is called -> data.source.
WAYS = {
    "folder": "folder",
    "arrayrecord": "tfds",
    "parquet": "parquet",
    "parquet, plain": "parquet",
    "tar": "webdataset",
}


def write_folder(root: Path, rows: Iterable[Row]) -> Path:
    """A file each, in the folder of its class."""
    for number, (data, label) in enumerate(rows):
        folder = root / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:07d}.jpg").write_bytes(data)
    return root


def write_parquet(root: Path, rows: Iterable[Row], *, compression: str) -> Path:
    """Files of {bytes, path} and labels, 100 rows a group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True)
    for number, part in enumerate(_parts(rows)):
        images = [{"bytes": data, "path": None} for data, _ in part]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        labels = [label for _, label in part]
        table = pa.table({"image": pa.array(images, kind), "label": labels})
        path = root / f"{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=100, compression=compression)
    return root


def write_tar(root: Path, rows: Iterable[Row]) -> Path:
    """Shards of a .jpg and a .cls each."""
    root.mkdir(parents=True)
    for number, part in enumerate(_parts(rows)):
        with tarfile.open(root / f"{number:05d}.tar", "w") as tar:
            for row, (data, label) in enumerate(part):
                for suffix, content in (("jpg", data), ("cls", b"%d" % label)):
                    member = tarfile.TarInfo(f"{row:07d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return root


def write_array_record(root: Path, rows: Iterable[Row]) -> Path:
    """A data set as TFDS prepares it, in the order of the rows."""
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        """The rows."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Image(encoding_format="jpeg")
            label = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(
                builder=self, features=features, disable_shuffling=True
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, (data, label) in enumerate(rows):
                yield number, {"image": io.BytesIO(data), "label": label}

    tfds.disable_progress_bar()
    builder = Photos(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS_PER_FILE:
            yield part
            part = []
    if part:
        yield part


def write(way: str, root: Path, rows: Iterable[Row]) -> Path:
    """The rows in one of the ways; where they are."""
    if way == "folder":
        return write_folder(root, rows)
    if way == "arrayrecord":
        return write_array_record(root, rows)
    if way == "tar":
        return write_tar(root, rows)
    compression = "none" if way.endswith("plain") else "snappy"
    return write_parquet(root, rows, compression=compression)


def open_way(way: str, root: Path) -> ImageSource:
    """All rows of one of the ways."""
    return open_source(
        source=WAYS[way],
        root=str(root),
        split="train",
        list_file=None,
        val_fraction=0.0,
        num_images=None,
        local_cache_dir=None,
        decoding=PLAIN,
        exclude=(),
        unreadable_folders="refuse",
        instances=None,
    )


def reads_per_second(source: ImageSource, seconds: float) -> float:
    """Bytes alone, in random order."""
    rng, count, since = np.random.default_rng(0), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - since) < seconds:
        source.read(int(rng.integers(len(source))))
        count += 1
    return count / elapsed


def group_reads_per_second(root: Path, seconds: float) -> float:
    """Row groups by PyArrow, one for each photo."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(next(root.glob("*.parquet")))
    rng, count, since = np.random.default_rng(0), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - since) < seconds:
        group = int(rng.integers(file.num_row_groups))
        table = file.read_row_group(group, columns=["image.bytes"], use_threads=False)
        table.column(0)[int(rng.integers(len(table)))].as_py()
        count += 1
    return count / elapsed


def print_rates(folder: Path, options: argparse.Namespace) -> None:
    """A row for each way, number of workers and R."""
    photos = write_photos(folder / "photos", options.num_photos)
    rows = [(photos.read(i), i * CLASSES // len(photos)) for i in range(len(photos))]
    roots = {way: write(way, folder / str(n), rows) for n, way in enumerate(WAYS)}
    sources = {way: open_way(way, root) for way, root in roots.items()}
    print(
        f"{len(rows)} photos, {sum(len(d) for d, _ in rows) / len(rows) / 1e3:.0f} kB"
    )
    for way, source in sources.items():
        print(f"{way:<16}{reads_per_second(source, options.seconds):>8.0f} reads/s")
    group = group_reads_per_second(roots["parquet"], options.seconds)
    print(f"{'by group':<16}{group:>8.0f} reads/s", flush=True)
    print(f"{'':<16}{'R':>2}{'workers':>8}{'images/s':>10}{'per core-second':>17}")
    for repeats in options.repeats:
        for workers in options.workers:
            found: dict[str, list[Rate]] = {way: [] for way in sources}
            for _ in range(options.rounds):
                for way, source in sources.items():
                    batches = own_batches(
                        source,  # type: ignore[arg-type]  # any source
                        ("full", repeats),
                        resize=RESIZES[-1],
                        workers=workers,
                        batch_size=options.batch_size,
                    )
                    found[way].append(
                        measure(
                            batches,
                            batch_size=options.batch_size,
                            seconds=options.seconds,
                            workers=workers,
                        )
                    )
            for way, rates in found.items():
                per_second, per_core = np.median(np.array(rates), axis=0)
                print(
                    f"{way:<16}{repeats:>2}{workers:>8}{per_second:>10.0f}"
                    f"{per_core:>17.0f}",
                    flush=True,
                )


def print_memory(folder: Path, count: int) -> None:
    """A row for each way: what opening and holding so many rows takes."""

    def rows() -> Iterator[Row]:
        rng = np.random.default_rng(0)
        for number in range(count):
            yield rng.bytes(ROW_BYTES), number * CLASSES // count

    print(f"{count} rows of {ROW_BYTES} bytes")
    print(
        f"{'':<16}{'first s':>9}{'then s':>8}{'MiB':>6}{'sent MB':>9}{'index MB':>10}"
    )
    for number, way in enumerate(WAYS):
        root = write(way, folder / f"rows{number}", rows())
        environment = {**os.environ, "MULTIGRAIN_CACHE": str(folder / "cache")}
        found = [
            subprocess.run(
                [sys.executable, __file__, "--child", way, str(root)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
            for _ in range(2)
        ]
        first, (then, memory, sent) = found[0].split()[0], found[1].split()
        kept = sum(p.stat().st_size for p in root.glob("*.multigrain-index"))
        print(
            f"{way:<16}{float(first):>9.1f}{float(then):>8.2f}{memory:>6}{sent:>9}"
            f"{kept / 1e6:>10.1f}",
            flush=True,
        )


def child(way: str, root: Path) -> None:
    """Open a source, read 1 000 rows, and print seconds, MiB and MB."""
    before, since = _resident_mib(), time.perf_counter()
    source = open_way(way, root)
    seconds = time.perf_counter() - since
    rng = np.random.default_rng(0)
    for index in rng.integers(len(source), size=1000):
        source.read(int(index))
    sent = len(pickle.dumps(source)) / 1e6
    print(f"{seconds:.3f} {_resident_mib() - before:.0f} {sent:.1f}")


def _resident_mib() -> float:
    """Memory that this process holds, of its own (on Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Photos in several formats.")
    parser.add_argument("--workers", type=at_least(0), nargs="+", default=[0])
    parser.add_argument("--repeats", type=at_least(1), nargs="+", default=[1, 3])
    parser.add_argument("--batch-size", type=at_least(1), default=96)
    parser.add_argument("--num-photos", type=at_least(0), default=200)
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--seconds", type=positive, default=3.0)
    parser.add_argument("--rows", type=at_least(0), default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    print_machine(PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        if options.num_photos:
            (Path(folder) / "photos").mkdir()
            print_rates(Path(folder), options)
        if options.rows:
            print_memory(Path(folder), options.rows)


if __name__ == "__main__":
    outlive_readers()
    main()
