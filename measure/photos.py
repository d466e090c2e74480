"""How photos of a folder are read: all of them once, counted by what became of each.

    python measure/photos.py --folder Tests/images
    python measure/photos.py --list 200000

Every file, whatever its suffix, is decoded as one's own photos are, with warnings as
errors, and its size is read from its header as `embed` does. Made for the images of
Pillow's own tests: `pip download --no-binary :all: --no-deps pillow==VERSION`, unpack,
and give Tests/images. With --list, so many small distinct files are written to a
temporary folder of a hundred classes, which is listed twice.
"""

import argparse
import io
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.arguments import at_least
from measure.machine import print_machine
from multigrain_jax.data.decoding import (
    VIEWER,
    UndecodableImageError,
    decode_noted,
    encoded_size,
)
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve
from multigrain_jax.terminal import outlive_readers

SLOW_S = 5.0
# What differs from file to file in a reason: numbers, and what is quoted.
PARTICULARS = re.compile(r"\d+x\d+|\d+|b'[^']*'|'[^']*'")


def outcome(path: Path) -> tuple[str, tuple[str, ...]]:
    """What becomes of a file: a reason, "read" or a fault; and the notes on it."""
    data = path.read_bytes()
    try:
        found = decode_noted(data, VIEWER)
    except UndecodableImageError as error:
        return f"refused: {PARTICULARS.sub('…', str(error))}", ()
    except Exception as error:
        return f"FAULT: {type(error).__name__}: {error} ({path.name})", ()
    if encoded_size(io.BytesIO(data), VIEWER) != found.image.size:
        return f"FAULT: another size than its header's ({path.name})", ()
    return "read", found.notes


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--list", type=at_least(0), default=0)
    options = parser.parse_args(arguments)
    print_machine(["pillow", "numpy"])
    if options.list:
        list_files(options.list)
    if options.folder:
        decode_files(options.folder)


def list_files(count: int) -> None:
    """List a new folder of so many files twice, and print how long that took."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photos"
        os.environ["MULTIGRAIN_CACHE"] = f"{name}/cache"
        for number in range(count):
            folder = root / str(number % 100)
            if number < 100:
                folder.mkdir(parents=True)
            (folder / f"{number}.jpg").write_bytes(b"%d" % number)
        for what in ("first", "second"):
            since = time.perf_counter()
            sieve = Sieve(DEFAULT_EXCLUDE, "skip")
            files, names = index_folder(root, split=None, sieve=sieve, instances=None)
            print(
                f"{what} time: {len(files)} files of {len(names)} classes in "
                f"{time.perf_counter() - since:.2f} s, peak memory {peak_mib()} MiB"
            )


def peak_mib() -> int:
    """The largest memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def decode_files(folder: Path) -> None:
    """Decode all files of a folder, and print how many of each kind there were."""
    warnings.simplefilter("error")
    outcomes: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    slow = []
    started = time.perf_counter()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        since = time.perf_counter()
        what, said = outcome(path)
        outcomes[what] += 1
        notes.update(PARTICULARS.sub("…", note) for note in said)
        if time.perf_counter() - since > SLOW_S:
            slow.append(path.name)
    for title, counts in (("outcomes", outcomes), ("notes", notes)):
        print(f"\n{title}")
        for what, count in counts.most_common():
            print(f"{count:6d}  {what}")
    print(
        f"\n{len(files)} files in {time.perf_counter() - started:.0f} s, peak memory "
        f"{peak_mib()} MiB, slower than {SLOW_S:g} s: {', '.join(slow) or 'none'}"
    )


if __name__ == "__main__":
    outlive_readers()
    main()
