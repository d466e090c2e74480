"""Speed and memory of the exact search, against faiss.IndexFlatIP where it is there.

    python measure/search.py --rows 1000000 --dim 256

Makes random float16 descriptors in a temporary folder, searches them, and prints the
machine, the versions, queries per second and the peak resident memory.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.arguments import at_least
from measure.machine import num_cores, print_machine
from multigrain_jax.descriptors.index import SEARCH_BYTES, DescriptorIndex
from multigrain_jax.terminal import outlive_readers

SHARD_ROWS = 50_000


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=at_least(1), default=1_000_000)
    parser.add_argument("--dim", type=at_least(1), default=256)
    parser.add_argument("--queries", type=at_least(1), default=256)
    parser.add_argument("--k", type=at_least(1), default=10)
    parser.add_argument("--block-mib", type=at_least(1), default=SEARCH_BYTES >> 20)
    options = parser.parse_args(arguments)
    print_machine(["jax", "numpy", "faiss-cpu"])
    print(f"{vars(options)}, float16")
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Search the rows, print times and memory, compare with faiss."""
    shards = write_shards(folder, options.rows, options.dim)
    rng = np.random.default_rng(1)
    queries = unit(rng, options.queries, options.dim)
    block_bytes = options.block_mib << 20
    # What the compiler and the libraries take is there before any database is.
    small = DescriptorIndex([np.load(shards[0])[:1000]])
    small.search(queries, options.k, block_bytes=block_bytes)
    before = peak_mib()
    index = DescriptorIndex(shards)

    def ours() -> np.ndarray:
        return index.search(queries, options.k, block_bytes=block_bytes)[1]

    seconds, rows = best_time(ours)
    report("this package", seconds, options.queries)
    print(
        f"peak memory {peak_mib():.0f} MiB, {before:.0f} before the database, "
        f"{peak_mib() - before:.0f} MiB more"
    )
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: pip install -e '.[faiss]'")
        return
    faiss.omp_set_num_threads(num_cores())
    flat = faiss.IndexFlatIP(options.dim)
    for shard in shards:
        flat.add(np.load(shard).astype(np.float32))
    seconds, theirs = best_time(lambda: flat.search(queries, options.k)[1])
    report(f"faiss.IndexFlatIP {faiss.__version__}", seconds, options.queries)
    print(f"equal rows: {np.mean(rows == theirs):.4%} (rounding orders near ties)")


def write_shards(folder: Path, rows: int, dim: int) -> list[Path]:
    """Random unit vectors as float16 shards."""
    rng = np.random.default_rng(0)
    paths = []
    for start in range(0, rows, SHARD_ROWS):
        paths.append(folder / f"shard-{len(paths):05d}.npy")
        count = min(SHARD_ROWS, rows - start)
        np.save(paths[-1], unit(rng, count, dim).astype(np.float16))
    return paths


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Random rows of unit length, float32 [rows, dim]."""
    vectors = rng.standard_normal((rows, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def best_time(search: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """The shortest of three runs in seconds, and the result."""
    times, result = [], search()
    for _ in range(3):
        start = time.perf_counter()
        result = search()
        times.append(time.perf_counter() - start)
    return min(times), result


def report(name: str, seconds: float, queries: int) -> None:
    """Print one line of speed."""
    print(f"{name}: {seconds:.3f} s, {queries / seconds:.1f} queries/s", flush=True)


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    outlive_readers()
    main()
