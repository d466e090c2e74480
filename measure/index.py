"""Approximate indexes against the exact search: recall, speed, memory, time to build.

    python measure/index.py --checkpoint workdirs/quickstart --rows 1000000

Writes a folder of made-up descriptors (measure/index_rows.py says of what), builds
every index over it and searches through each, in processes of their own. Printed: the
rows' intrinsic dimension; of each index the time and the peak memory of the build, and
bytes per photo; of each search recall@10, queries per second (wall, and per second of
the processor, which is what counts on a busy machine) and the peak memory.
--rows-of INDEX=N measures one on fewer rows. On a busy machine threads that wait for
each other cost most of the time: OMP_NUM_THREADS=1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.arguments import at_least
from measure.index_rows import (
    intrinsic_dimension,
    make_base,
    make_rows,
    photo_descriptors,
    write_collection,
)
from measure.machine import print_machine
from multigrain_jax.descriptors.approximate.build import begin_record, update_index
from multigrain_jax.descriptors.approximate.engine import Effort
from multigrain_jax.descriptors.approximate.opening import open_engine
from multigrain_jax.descriptors.approximate.record import Record, write_record
from multigrain_jax.descriptors.approximate.search import open_approximate
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.terminal import outlive_readers

K = 10
TRAIN_ROWS = 131_072
# name -> engine, its options, (num_candidates, num_probes, ef_search) to try
SHARED = {"num_lists": None, "num_links": 32, "ef_construction": 80}
FAISS = {**SHARED, "num_code_bytes": None, "seed": 0}
LITE = {
    **SHARED,
    "uri": "lite",
    "collection": "multigrain_photos",
    "rows_per_insert": 2_000,
}
INDEXES: dict[str, tuple[str, dict[str, Any], list[tuple[int, int, int]]]] = {
    "ivf_pq": (
        "faiss",
        {**FAISS, "kind": "ivf_pq"},
        [(50, 16, 1), (100, 16, 1), (200, 16, 1), (200, 32, 1), (400, 32, 1)],
    ),
    "ivf_pq_small": (
        "faiss",
        {**FAISS, "kind": "ivf_pq", "num_code_bytes": 64},
        [(200, 16, 1), (400, 64, 1), (1000, 16, 1)],
    ),
    "hnsw": (
        "faiss",
        {**FAISS, "kind": "hnsw"},
        [(20, 1, 64), (50, 1, 128), (100, 1, 256), (200, 1, 256)],
    ),
    "lite_hnsw": ("milvus", {**LITE, "kind": "hnsw"}, [(20, 1, 64), (50, 1, 128)]),
    "lite_flat": ("milvus", {**LITE, "kind": "flat"}, [(20, 1, 1)]),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="workdirs/quickstart")
    parser.add_argument("--rows", type=at_least(1), default=1_000_000)
    parser.add_argument("--dim", type=at_least(1), default=256)
    parser.add_argument("--queries", type=at_least(1), default=256)
    parser.add_argument("--photos", type=at_least(1), default=1_000)
    parser.add_argument("--indexes", nargs="*", default=[*INDEXES], choices=INDEXES)
    parser.add_argument(
        "--rows-of", action="append", default=[], type=rows_of, metavar="INDEX=N"
    )
    parser.add_argument("--folder", type=Path, help="kept (default: a temporary one)")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        result = (build if options.part[0] == "build" else search)(
            options.part[1], options.folder
        )
        print(json.dumps(result))
        return
    packages = ["jax", "numpy", "faiss-cpu", "pymilvus", "milvus-lite"]
    print_machine(packages)
    print(f"{options.rows} x {options.dim}, {options.queries} queries, k = {K}")
    rows: dict[str, int] = {name: options.rows for name in options.indexes}
    rows |= options.rows_of
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        base = make_base(
            photo_descriptors(options.checkpoint, options.photos, test_size=64),
            options.dim,
        )
        for name in options.indexes:
            folder = root / str(rows[name])
            measure(name, base, folder, rows[name], options.queries)


def rows_of(text: str) -> tuple[str, int]:
    """The type of INDEX=N."""
    name, _, rows = text.partition("=")
    if name not in INDEXES:
        raise argparse.ArgumentTypeError(
            f"found {text}, expected INDEX=N with one of {', '.join(INDEXES)}"
        )
    return name, at_least(1)(rows)


def measure(name: str, base: Any, folder: Path, rows: int, num_queries: int) -> None:
    """Build and search one index, and print."""
    if not (folder / "truth.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_collection(folder / "descriptors", base, rows)
        queries = make_rows(base, num_queries, seed=0)
        np.savez(folder / "queries.npz", queries=queries)
        exact = run_part("search", "exact", folder)
        print_search("exact", rows, exact["searches"][0], exact, 1.0)
        truth = DescriptorIndex.open(folder / "descriptors").search(queries, 20)[0]
        base_own = DescriptorIndex([base.descriptors]).search(base.descriptors, 21)[0]
        print(
            f"intrinsic dimension: {intrinsic_dimension(base_own[:, 1:]):.1f} of "
            f"{len(base.descriptors)} descriptors of photos, "
            f"{intrinsic_dimension(truth):.1f} of {rows} rows",
            flush=True,
        )
    exact = json.loads((folder / "exact.json").read_text())
    built = run_part("build", name, folder)
    print(
        f"{name:<12} {rows:>9} rows: built in {built['wall']:.0f} s "
        f"({built['cpu']:.0f} s of the processor), peak {built['peak_mib']:.0f} MiB",
        flush=True,
    )
    found = run_part("search", name, folder)
    # Lite writes the graph once it is first asked for.
    files = [path for path in (folder / name).rglob("*") if path.is_file()]
    num_bytes = sum(path.stat().st_size for path in files)
    print(f"{name:<12} {rows:>9} rows: {num_bytes / rows:.0f} bytes per photo")
    for each in found["searches"]:
        ratio = exact["searches"][0]["cpu"] / each["cpu"]
        print_search(name, rows, each, found, ratio)


def print_search(
    name: str, rows: int, each: dict[str, Any], found: dict[str, Any], ratio: float
) -> None:
    """One line of a search."""
    print(
        f"{name:<12} {rows:>9} rows, {each['effort']}: recall@{K} "
        f"{each['recall']:.4f}, {each['queries'] / each['wall']:.1f} queries/s, "
        f"{each['queries'] / each['cpu']:.1f} per second of the processor "
        f"({ratio:.1f} times the exact search), peak {found['peak_mib']:.0f} MiB",
        flush=True,
    )


def run_part(part: str, name: str, folder: Path) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--folder", str(folder), "--part", part, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    (folder / f"{name}.json").write_text(json.dumps(result))
    return result


def build(name: str, folder: Path) -> dict[str, Any]:
    """Build an index; its seconds, bytes and peak memory."""
    engine_name, options, _ = INDEXES[name]
    index = DescriptorIndex.open(folder / "descriptors")
    assert index.settings is not None
    home = folder / name
    home.mkdir()
    started, cpu = time.perf_counter(), time.process_time()
    record = Record(index.settings, engine_name, options, {})
    engine = open_engine(record, home)
    record = begin_record(record, index, engine, train_rows=TRAIN_ROWS, seed=0)
    write_record(home, record)
    record, _ = update_index(
        home,
        record,
        index,
        engine,
        rows_per_commit=262_144,
        rows_per_part=4_194_304,
        before_step=lambda: None,
    )
    seconds = time.perf_counter() - started, time.process_time() - cpu
    engine.close()
    return {"wall": seconds[0], "cpu": seconds[1], "peak_mib": peak_mib()}


def search(name: str, folder: Path) -> dict[str, Any]:
    """Search exactly, or through an index: seconds, recall and peak memory."""
    exact = DescriptorIndex.open(folder / "descriptors")
    queries = np.load(folder / "queries.npz")["queries"]
    if name == "exact":
        # Digests are compared once, and programs compiled, before anything is timed.
        exact.search(queries, K)
        timed = best_of(lambda: exact.search(queries, K))
        np.savez(folder / "truth.npz", rows=timed.pop("rows"))
        searches = [{**timed, "queries": len(queries), "effort": "", "recall": 1.0}]
        return {"searches": searches, "peak_mib": peak_mib()}
    truth = np.load(folder / "truth.npz")["rows"]
    searches = []
    for candidates, probes, ef in INDEXES[name][2]:
        effort = Effort(candidates, probes, ef)
        index = open_approximate(exact, folder / name, open_engine, effort=effort)
        index.search(queries[:8], K)
        timed = best_of(lambda index=index: index.search(queries, K))
        index.close()
        rows = timed.pop("rows")
        hits = sum(
            len(set(own) & set(true))
            for own, true in zip(rows.tolist(), truth.tolist(), strict=True)
        )
        words = f"{candidates} candidates, " + (
            f"{probes} probes" if "ivf_pq" in name else f"ef {ef}"
        )
        recall = hits / truth.size
        searches.append(
            {**timed, "queries": len(queries), "effort": words, "recall": recall}
        )
    return {"searches": searches, "peak_mib": peak_mib()}


def best_of(run: Any, times: int = 3) -> dict[str, Any]:
    """The shortest of some runs, in seconds and seconds of the processor."""
    walls, cpus, result = [], [], None
    for _ in range(times):
        started, cpu = time.perf_counter(), time.process_time()
        result = run()
        walls.append(time.perf_counter() - started)
        cpus.append(time.process_time() - cpu)
    assert result is not None
    return {"wall": min(walls), "cpu": min(cpus), "rows": result[1]}


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    with open(f"/proc/{os.getpid()}/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    outlive_readers()
    main()
