"""What XLA makes of the training step for a GPU, found without one: memory and traffic.

XLA compiles for a described device too. It then plans the memory and picks the kernels
as it would there, but can time nothing: convolutions keep cuDNN's default algorithm and
no workspace. Counted are the kernels of a step and the bytes that each reads and writes
from and to memory, its operands and results once. Nothing here is a measurement of
time; measure/step.py measures, on the device itself.

    pip install -e '.[cuda]'
    JAX_PLATFORMS=cpu python measure/gpu_program.py
    JAX_PLATFORMS=cpu python measure/gpu_program.py --batch-size 256 --show 20
"""

import argparse
import math
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from measure.arguments import at_least
from measure.machine import print_machine
from measure.step import add_step_options, build_step, require_even_batch
from multigrain_jax.mesh import DATA_AXIS, batch_sharding, replicated
from multigrain_jax.runtime import DETERMINISTIC_STEP
from multigrain_jax.terminal import outlive_readers
from multigrain_jax.train.state import create_state

# One H200 (SXM), from the vendor's data sheet, in the words of XLA's descriptions.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 device_memory_size: 150000000000
  l2_cache_size: 52428800 clock_rate_ghz: 1.98 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 12 }
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
"""
BANDWIDTH = 4.8e12  # bytes per second
SMALL = 10_000_000  # bytes that take less time than starting the kernel

_VALUE_BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4}
_VALUE_BYTES |= {"u32": 4, "f64": 8, "s64": 8, "u64": 8}
_ARRAY = re.compile(r"\b(" + "|".join(_VALUE_BYTES) + r")\[([\d,]*)\]")
_OPERATION = re.compile(
    r"\s*(?:ROOT )?%(\S+) = (\([^()]*\)|\S+) ([\w-]+)\(([^)]*)\)(.*)"
)
# What only names or views arrays.
_NO_KERNEL = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}


class Kernel(NamedTuple):
    """One launch: what it is, its result and operands, and the bytes it moves."""

    kind: str
    result: str
    operands: list[str]
    moved: int


def array_bytes(arrays: str) -> int:
    """The bytes of all arrays in a text like `(f32[8,64], bf16[64])`."""
    return sum(
        _VALUE_BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
        for dtype, shape in _ARRAY.findall(arrays)
    )


def kernels(program: str) -> list[Kernel]:
    """The launches of a compiled program's text, in order."""
    arrays: dict[str, str] = {}
    found = []
    for line in program.partition("\nENTRY ")[2].splitlines():
        if not (operation := _OPERATION.match(line)):
            continue
        name, result, what, inputs, rest = operation.groups()
        arrays[name] = result = re.sub(r"\{[\d,]*\}|/\*.*?\*/", "", result)
        if what in _NO_KERNEL:
            continue
        if what == "custom-call":
            what = re.findall(r'custom_call_target="(.*?)"', rest)[0].strip("_")
        elif what == "fusion":
            what = re.sub(r"[\d.]*$", "", name)
        operands = [arrays.get(each, "") for each in re.findall(r"%([^\s,]+)", inputs)]
        moved = array_bytes(result)
        # A slice reads no more than it gives.
        reads = sum(map(array_bytes, operands))
        moved += min(reads, moved) if "slice" in what else reads
        found.append(Kernel(what, result, operands, moved))
    return found


def compile_step(options: argparse.Namespace) -> jax.stages.Compiled:
    """The step, compiled for one described GPU."""
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=H200, topology="1x1x1"
        )
    except (NotImplementedError, RuntimeError) as error:
        sys.exit(f"XLA for CUDA is needed, no GPU: pip install -e '.[cuda]' ({error})")
    devices = np.array(topology.devices)
    mesh = Mesh(devices, (DATA_AXIS,), axis_types=(AxisType.Auto,))
    built = build_step(
        options, mesh, DETERMINISTIC_STEP if options.deterministic else {}
    )
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
        jax.eval_shape(lambda: create_state(built.variables, built.tx)),
    )
    count, size = options.batch_size, options.size
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
        for name, shape, dtype in (
            ("image", (count, size, size, 3), np.uint8),
            ("label", (count,), np.int32),
            ("instance_id", (count,), np.int32),
        )
    }
    return built.step.lower(state, batch).compile()


def main(arguments: list[str] | None = None) -> None:
    """Compile, count and print."""
    parser = argparse.ArgumentParser(description="The step that XLA makes for a GPU.")
    add_step_options(parser)
    parser.add_argument(
        "--show", type=at_least(0), default=0, help="the largest kernels"
    )
    options = parser.parse_args(arguments)
    require_even_batch(parser, options)
    if options.accumulation > 1:
        parser.error("--accumulation: only whole batches are counted here")
    print_machine(["jax", "jaxlib", "jax-cuda13-plugin", "flax"])
    started = time.perf_counter()
    compiled = compile_step(options)
    print(
        f"{options.backbone}, {options.size} x {options.size}, "
        f"batch {options.batch_size}, groups of {options.group_size}, "
        f"R = {options.repeats}, {options.dtype}, for one H200; compiled in "
        f"{time.perf_counter() - started:.0f} s"
    )
    memory, program = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and program is not None
    print(
        f"memory: {memory.argument_size_in_bytes / 2**30:.2f} GiB arguments, "
        f"{memory.temp_size_in_bytes / 2**30:.2f} GiB temporaries"
    )
    found = kernels(program)
    total = sum(kernel.moved for kernel in found)
    small = sum(kernel.moved < SMALL for kernel in found)
    print(
        f"{len(found)} kernels, {small} of them of less than {SMALL / 1e6:.0f} MB, "
        f"move {total / 1e9:.1f} GB: {1e3 * total / BANDWIDTH:.1f} ms at "
        f"{BANDWIDTH / 1e12:.1f} TB/s"
    )
    moved, launches = Counter[str](), Counter(kernel.kind for kernel in found)
    for kernel in found:
        moved[kernel.kind] += kernel.moved
    for kind, amount in moved.most_common(12):
        print(f"{amount / 1e9:9.2f} GB in {launches[kind]:4d} x {kind}")
    largest = sorted(found, key=lambda kernel: -kernel.moved)
    for kernel in largest[: options.show]:
        reads = ", ".join(each for each in kernel.operands if array_bytes(each) > 1e6)
        print(
            f"{kernel.moved / 1e9:9.2f} GB {kernel.kind}: {kernel.result} from {reads}"
        )


if __name__ == "__main__":
    outlive_readers()
    main()
