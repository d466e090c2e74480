"""What is set up once for a process, and what is known of it."""

import contextlib
import gc
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from multigrain_jax.data.cache import cache_folder
from multigrain_jax.errors import InputError
from multigrain_jax.models.backbones import Backbone
from multigrain_jax.remedies import install

# Platforms of JAX -> the extra of this package that brings them.
EXTRAS = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}
# What the kernel shows of accelerators -> what they are.
DEVICE_FILES = {
    "/dev/nvidia[0-9]*": "NVIDIA GPU",
    "/dev/accel[0-9]*": "TPU",
    "/dev/accel/accel[0-9]*": "accelerator",
    "/dev/kfd": "AMD GPU",
}
NVIDIA_PATIENCE_S = 10.0
# Reading processes, shards and checkpoints take files by the dozen.
FEW_OPEN_FILES, ENOUGH_OPEN_FILES = 1024, 4096

# Programs that compile faster are not kept.
KEPT_FROM_SECONDS = 0.2

CPU_NETWORK: dict[str, str | bool] = {
    # One operation after the other, in the order that needs least memory: a third less
    # of it in a training step, and 5 to 8 % less time. The bits are the same.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # The barriers of models/windows.py stay until operations have been fused.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
# YNNPACK for sums and matrix products, not for convolutions: XLA's own make a training
# step of ResNet-18 a sixth cheaper, and embedding by ResNets and SENets 1.3 to 1.7
# times as fast. Networks with depthwise ones embed a quarter slower with them.
CPU_OWN_CONVOLUTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
}
# XLA then takes no operation that adds in an order of its own.
DETERMINISTIC_STEP: dict[str, str | bool] = {"xla_gpu_deterministic_ops": True}

# As many as four images of 224 x 224: the maps of more pixels leave the caches, which
# costs a fifth to a quarter of the rate; those of fewer, of small images, keep a core
# too short at work.
CPU_PIXELS_AT_ONCE = 4 * 224**2
# Each of them holds the maps of its batch.
MOST_PROGRAMS_AT_ONCE = 16

_IMPORTED = time.perf_counter()


def import_for_good(name: str) -> ModuleType:
    """A module; the garbage collector passes over what came with it from now on.

    JAX and what else a task needs make objects by the hundred thousand, which stay to
    the end. Looking through them again and again, and as the process ends, was a tenth
    of a short run. For a process of our own: it passes over a user's objects too.
    """
    is_new = name not in sys.modules
    module = importlib.import_module(name)
    if is_new:
        gc.freeze()
    return module


def keep_compiled_programs() -> Path | None:
    """Let this process keep what it compiles, for its next start; the folder.

    A folder that JAX is told (JAX_COMPILATION_CACHE_DIR) is left as it is, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns keeping off: None. So does a folder that cannot
    be written, with a line that says so. A damaged entry of this package's folder is
    compiled anew, with a line too, and kept.
    """
    config: Any = jax.config  # the checker does not know its keys
    if not config.jax_enable_compilation_cache:
        return None
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    folder = cache_folder("compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} is not writable")
    except OSError as error:
        print(f"compiled programs are not kept for the next start: {error}")
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", KEPT_FROM_SECONDS)
    _remove_damaged_entries(folder)
    return folder


def _remove_damaged_entries(folder: Path) -> None:
    """Let JAX remove an entry of `folder` that it finds damaged.

    It writes no entry where there is one: such a program would be compiled anew, with a
    warning, in every process from then on. JAX has no public name for what reads an
    entry; a version that has another one goes on so.
    """
    try:
        reader: Any = importlib.import_module("jax._src.compilation_cache")
        read = reader.get_executable_and_time
    except (ImportError, AttributeError):
        return
    config: Any = jax.config  # the checker does not know its keys

    def read_or_remove(cache_key: str, *rest: Any) -> Any:
        try:
            return read(cache_key, *rest)
        except (OSError, MemoryError):
            raise  # the entry may be sound, and readable the next time
        except Exception as error:
            if config.jax_compilation_cache_dir != str(folder):
                raise  # a user's folder, named since
            # If another process is still writing it, no more is lost than its work.
            (folder / f"{cache_key}-cache").unlink(missing_ok=True)
            name, reason = cache_key.rpartition("-")[0], str(error).partition("\n")[0]
            print(f"the kept program {name} is damaged ({reason}): it is compiled anew")
        return read(cache_key, *rest)  # as of an entry that is not there

    reader.get_executable_and_time = read_or_remove


def compiler_options(
    backbone: Backbone, *, deterministic: bool = False
) -> dict[str, str | bool]:
    """How XLA is to compile a network's programs for this process's devices.

    Args:
        backbone: the network's row of `BACKBONES`.
        deterministic: the same bits in every run on a GPU too; a CPU gives them anyway.
    """
    options: dict[str, str | bool] = {}
    if jax.default_backend() == "cpu":
        options |= CPU_NETWORK
        if not backbone.depthwise:
            options |= CPU_OWN_CONVOLUTIONS
    if deterministic:
        options |= DETERMINISTIC_STEP
    return options


def images_at_once(batch_size: int, test_size: int) -> int:
    """The images per batch that evaluation is fastest with.

    `batch_size`, but on the CPU of a single host no more than a program of
    `programs_at_once` is best with, and one at least per device. Results differ with it
    by no more than rounding.

    Args:
        batch_size: the most, a multiple of the number of devices.
        test_size: the images' side, in pixels.
    """
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return batch_size
    devices = jax.device_count()
    return min(batch_size, devices * max(1, CPU_PIXELS_AT_ONCE // test_size**2))


def programs_at_once() -> int:
    """How many batches evaluation works on at the same time, each in a thread.

    One for each core of a CPU that is a single device, of which one program keeps a
    part idle. Elsewhere 1: devices take their programs one after the other, and hosts
    must agree on their order.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return 1
    return min(num_cores(), MOST_PROGRAMS_AT_ONCE)


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seconds_since_launch() -> float:
    """How long this process has lived; where that is unknown, since the import."""
    try:
        # After the name in brackets; the start is field 22, in ticks since the boot.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


def compute_dtype(name: str) -> np.dtype:
    """The dtype that a config names; "auto" is bfloat16, but float32 on CPUs."""
    on_cpu = jax.default_backend() == "cpu"
    return jnp.dtype(name if name != "auto" else "float32" if on_cpu else "bfloat16")


def raise_open_files() -> None:
    """Raise a low limit of open files as far as this process may; says so."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = most == resource.RLIM_INFINITY
    wanted = ENOUGH_OPEN_FILES if unlimited else min(most, ENOUGH_OPEN_FILES)
    if limit == resource.RLIM_INFINITY or limit >= min(FEW_OPEN_FILES, wanted):
        return
    # Some systems have a lower bound of their own.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        print(f"open files: the limit was {limit} (ulimit -n), and is {wanted} now")


def look_for_devices(*, root: Path = Path("/")) -> None:
    """Say which devices are used, and which are there and are not.

    Args:
        root: where the system's device files are looked for.

    Raises:
        InputError: JAX has not the devices that it is told to use, or is told to
            compile nothing.
    """
    config: Any = jax.config  # the checker does not know its keys
    if config.jax_disable_jit:
        raise InputError(
            "JAX_DISABLE_JIT: found it set, expected programs to be compiled: a step "
            "is one program, and is slower by orders of magnitude without; unset it"
        )
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise InputError(_missing_platform(config.jax_platforms, error)) from error
    if jax.process_index():
        return
    kinds = sorted({device.device_kind for device in devices})
    hosts = f" of {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    print(
        f"devices: {len(devices)} {jax.default_backend()} ({', '.join(kinds)}){hosts}"
    )
    if jax.default_backend() != "cpu":
        return
    for kind, place in _accelerators(root):
        extra = "tpu" if kind == "TPU" else "cuda"
        told = config.jax_platforms
        remedy = (
            f"JAX_PLATFORMS={told} keeps it out"
            if told
            else f"JAX finds no plugin or driver for it ({install(extra)}?)"
        )
        print(f"WARNING: {place}: an {kind} is there and NOT USED: {remedy}")


def _missing_platform(platforms: str | None, error: Exception) -> str:
    """Why JAX has no devices, in one line."""
    names = [name for name in (platforms or "").split(",") if name]
    extras = sorted({EXTRAS[name] for name in names if name in EXTRAS})
    remedy = "unset it to use what there is"
    if extras:
        plugins = " or ".join(install(extra) for extra in extras)
        remedy = f"expected its plugin ({plugins}) and its driver, or {remedy}"
    reason = str(error).partition("\n")[0] or "JAX has no plugin for it"
    return f"JAX_PLATFORMS={platforms or ''}: no devices ({reason}); {remedy}"


def _accelerators(root: Path) -> Iterator[tuple[str, str]]:
    """What the system has: its kind, and where that is seen."""
    kinds = set()
    for pattern, kind in DEVICE_FILES.items():
        for path in sorted(root.glob(pattern.lstrip("/")))[:1]:
            kinds.add(kind)
            yield kind, f"/{path.relative_to(root)}"
    # Under WSL a GPU has no file of its own.
    program = shutil.which("nvidia-smi")
    if program is None or "NVIDIA GPU" in kinds:
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            [program, "-L"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_PATIENCE_S,
            check=True,
        )
        if listed.stdout.startswith("GPU "):
            yield "NVIDIA GPU", listed.stdout.partition(" (UUID")[0]
