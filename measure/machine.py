"""The machine and the versions that figures are measured with."""

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def print_machine(packages: Sequence[str], *, load: float | None = None) -> str:
    """Print what figures depend on besides the code, and return the text.

    JAX looks for its devices here, and takes hold of them.

    Args:
        packages: distributions as pip names them; one that is missing is said so.
        load: the machine's load before the measurement (None: as it is now).
    """
    load = os.getloadavg()[0] if load is None else load
    text = (
        f"{platform.machine()}, {processor()}, {num_cores()} cores, {memory()}, "
        f"load {load:.1f} before; {accelerators()}\n"
        f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )
    print(text, flush=True)
    return text


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition(":")
        if key.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or "unknown processor"


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> str:
    """The machine's memory in GiB."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return "unknown memory"
    return f"{total / 2**30:.0f} GiB of memory"


def accelerators() -> str:
    """How many devices of which kind JAX has."""
    # Not with the file: processes that read images start without JAX.
    import jax

    kinds = Counter(d.device_kind for d in jax.devices() if d.platform != "cpu")
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return listed or "no accelerator"


def version(package: str) -> str:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
