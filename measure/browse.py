"""The server of `browse` under load: rate, refusals, memory, hostile uploads, search.

    python measure/browse.py --test-size 224 --clients 32 --requests 100

Makes photos of mixed sizes, a network of random weights and their descriptors in a
temporary folder, starts the real server, and asks it over loopback from threads of this
process: as many clients as are given, and twice as many, next to the rate of `embed` on
the same photos; then requests for its memory, and broken and huge uploads. The search
is measured by itself, on random descriptors.
"""

import argparse
import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.browse.collection import Collection
from multigrain_jax.browse.neighbours import NeighbourSearch
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.terminal import outlive_readers

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((640, 480), (480, 640), (1024, 768), (800, 800), (320, 240))
COPIES_FOR_RATE = 4


class Outcome(NamedTuple):
    """What a client saw of one request."""

    status: int
    seconds: float
    retry_after: str | None


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--test-size", type=at_least(1), default=224)
    parser.add_argument("--photos", type=at_least(1), default=100)
    parser.add_argument("--clients", type=at_least(1), default=32)
    parser.add_argument("--requests", type=at_least(2), default=100)
    parser.add_argument("--memory-requests", type=at_least(0), default=5000)
    parser.add_argument("--hostile", type=at_least(0), default=200)
    parser.add_argument("--rows", type=at_least(0), default=100_000)
    parser.add_argument("--dim", type=at_least(1), default=512)
    options = parser.parse_args(arguments)
    print_machine(["jax", "starlette", "uvicorn", "pillow"])
    print(vars(options), flush=True)
    if options.rows:
        measure_search(options.rows, options.dim)
    with tempfile.TemporaryDirectory() as folder:
        measure_server(options, Path(folder))


def measure_search(rows: int, dim: int) -> None:
    """Time the part of a request that looks for neighbours."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = DescriptorIndex([vectors.astype(np.float16)])
    search = NeighbourSearch(Collection(index, roots=[]))
    within = np.ones(rows, bool)
    times, cpu_times = [], []
    for number in range(50):
        started, cpu_started = time.perf_counter(), time.process_time()
        search.find(vectors[number], 60, within=within)
        times.append(time.perf_counter() - started)
        cpu_times.append(time.process_time() - cpu_started)
    print(
        f"search of {rows} x {dim}, 60 neighbours: {spread(times)}; CPU time of all "
        f"cores: {spread(cpu_times)}",
        flush=True,
    )


def measure_server(options: argparse.Namespace, folder: Path) -> None:
    """Start a server of made-up photos, and ask it."""
    photos = make_photos(folder / "photos", options.photos)
    make_checkpoint(folder / "weights", options.backbone)
    rate = embed_rate(folder, options.test_size)
    print(f"embed: {rate:.1f} photos/s", flush=True)
    with server(folder) as (port, process):
        ask_all(port, photos[:8], clients=2, requests=8)
        for times in (1, 2):
            clients = times * options.clients
            outcomes, seconds = ask_all(
                port, photos, clients=clients, requests=options.requests // times
            )
            report(clients, outcomes, seconds, rate)
        if options.memory_requests:
            measure_memory(port, process, photos, options.memory_requests)
        if options.hostile:
            measure_hostile(port, photos, options.hostile)
        print(f"health: {ask(port, 'GET', '/health', None).status}", flush=True)


def make_photos(folder: Path, count: int) -> list[bytes]:
    """Smooth noise as JPEG files of a few sizes; their bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
        size = SIZES[number % len(SIZES)]
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"{number:04d}.jpg"
        image.save(path, quality=85)
        found.append(path.read_bytes())
    return found


def make_checkpoint(folder: Path, backbone: str) -> None:
    """A network of random weights."""
    _, variables = split_model(create_model(backbone, num_classes=10, seed=0))
    meta = {"backbone": backbone, "num_classes": 10, "config": None}
    store = CheckpointStore(folder)
    names = [f"class {number}" for number in range(10)]
    store.save(0, model=variables, meta={**meta, "class_names": names})
    store.close()


def command(recipe: str, workdir: Path, *settings: str) -> list[str]:
    """The words of the real command."""
    words = [sys.executable, "-m", "multigrain_jax.main"]
    words += ["--config", f"configs/{recipe}.py", "--workdir", str(workdir)]
    return words + [f"--config.{setting}" for setting in settings]


def embed_rate(folder: Path, test_size: int) -> float:
    """Photos a second of `embed`, the second time, when its programs are compiled."""
    # Several names of each photo, for a run of some seconds.
    many = folder / "many"
    many.mkdir()
    for copy in range(COPIES_FOR_RATE):
        for path in (folder / "photos").iterdir():
            (many / f"{copy}-{path.name}").write_bytes(path.read_bytes())
    rate = 0.0
    for workdir, root in (("embed", "photos"), ("rate", "many")):
        done = subprocess.run(
            command(
                "embed",
                folder / workdir,
                f"init_from={folder / 'weights'}",
                f"data.root={folder / root}",
                f"test_size={test_size}",
                "test_mode=square",
            ),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        (found,) = re.findall(r"images_per_second +(\S+)", done.stdout)
        rate = float(found)
    return rate


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """The real server: its port and its process."""
    words = command(
        "browse",
        folder / "browse",
        f"database={folder / 'embed'}",
        "open_browser=False",
    )
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = next(
                line for line in process.stdout if line.startswith("http://")
            )
            yield int(address.rpartition(":")[2]), process
        finally:
            process.terminate()


def ask(port: int, method: str, path: str, body: bytes | None) -> Outcome:
    """One request on a connection of its own."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        retry_after = answer.getheader("retry-after")
    return Outcome(answer.status, time.perf_counter() - started, retry_after)


def ask_all(
    port: int, photos: Sequence[bytes], *, clients: int, requests: int
) -> tuple[list[Outcome], float]:
    """Clients that ask at once, each one request after the other; and the seconds.

    A client that is told to come again does so after a moment, not the whole time: the
    load is to stay.
    """
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def client(number: int) -> None:
        for step in range(requests):
            photo = photos[(number * requests + step) % len(photos)]
            outcome = ask(port, "POST", "/api/search", photo)
            with lock:
                outcomes.append(outcome)
            if outcome.status == 503:
                time.sleep(0.2)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes, time.perf_counter() - started


def report(
    clients: int, outcomes: Sequence[Outcome], seconds: float, rate: float
) -> None:
    """Print what clients saw."""
    answered = [each for each in outcomes if each.status == 200]
    statuses = dict(Counter(each.status for each in outcomes))
    waits = {each.retry_after for each in outcomes if each.status == 503}
    found = len(answered) / seconds
    print(
        f"{clients} clients: {statuses} in {seconds:.1f} s, {found:.1f} photos/s, "
        f"{found / rate:.2f} of embed's; {spread([each.seconds for each in answered])}"
        + (f"; Retry-After {sorted(map(str, waits))}" if waits else ""),
        flush=True,
    )


def measure_memory(
    port: int, process: "subprocess.Popen[str]", photos: Sequence[bytes], count: int
) -> None:
    """Print the server's memory, its decoding processes included, on the way."""
    clients, parts = 16, 5
    sizes = [resident_mib(process.pid)]
    for _ in range(parts):
        ask_all(port, photos, clients=clients, requests=count // parts // clients)
        sizes.append(resident_mib(process.pid))
    listed = ", ".join(f"{size:.0f}" for size in sizes)
    print(f"memory over {count} requests: {listed} MiB", flush=True)


def resident_mib(pid: int) -> float:
    """Resident memory of a process and of those that it started."""
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if int(path.name) == pid or parent == pid:
                pages = int((path / "statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE")
    return total / 2**20


def measure_hostile(port: int, photos: Sequence[bytes], count: int) -> None:
    """Upload what is broken, hostile or huge, and print what was answered."""
    rng = np.random.default_rng(1)
    kinds = [
        lambda: rng.bytes(1000),
        lambda: b"",
        lambda: photos[0][: int(rng.integers(3, 2000))],
        lambda: bytes(51 << 20),
        lambda: photos[0][:200] + rng.bytes(20_000),
        lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\xff" * 40,
        lambda: b"<svg onload='x'>" * 100,
        lambda: b"GIF89a" + b"\xff" * 200,
    ]
    statuses: Counter[int] = Counter()
    for number in range(count):
        outcome = ask(port, "POST", "/api/embed", kinds[number % len(kinds)]())
        statuses[outcome.status] += 1
    answered = sum(statuses.values())
    print(f"hostile uploads: {answered} of {count} answered, {dict(statuses)}")


def spread(seconds: Sequence[float]) -> str:
    """The median and the 95th percentile, in words."""
    middle, high = np.percentile(seconds or [0.0], [50, 95])
    return f"p50 {1000 * middle:.0f} ms, p95 {1000 * high:.0f} ms"


if __name__ == "__main__":
    outlive_readers()
    main()
