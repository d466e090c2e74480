"""The joint training step: speed, shares, memory, and how near the floors it is.

One update of a ResNet with R augmentations per image, λ = 0.5, p = 3, batch norm and
negatives in groups, `full` augmentation on the device; the batch lies on the
device already (measure/input.py measures how it gets there). Before it, in a
process of its own that leaves the device's memory free, the same update in PyTorch
(measure/pytorch_step.py: channels_last, bfloat16 by autocast, torch.compile on a GPU,
fused SGD, images already augmented, batch norm over the batch).

Two floors, from what the run itself measures of the device (a large matrix product in
the compute dtype; a large copy, read and written bytes counted):

- operations: 2 per multiply-add of the convolutions and the classifier, forward, and
  twice that backward, less the images' gradient. Counted in the program: ResNet-50 at
  224: 8.2 GFLOP forward and 24.3 GFLOP in all per image;
- bytes: every map that leaves a convolution is touched 14 times, if convolutions are
  fused with nothing: forward written, read for the statistics, read and written to be
  normalised, read by the next (5); backward written as the next one's gradient, read
  with it for the sums (3), both read and the gradient written (3), read for the
  weights' gradient with the input (2), and read for the input's (1). ResNet-50 at 224
  has 11.1 million such values per image: 311 MB in bfloat16. Parameters: 6 times in
  float32 per step (read; gradient written and read; momentum read and written;
  parameter written).

    pip install -e '.[cuda,benchmark]'
    python measure/step.py
    python measure/step.py --backbone resnet18 --size 96 --batch-size 96 \
        --group-size 48 --dtype float32                          # a CPU
    python measure/step.py --accumulation 2 --own-only   # in microbatches
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from measure import pytorch_step
from measure.arguments import at_least, require_whole_groups
from measure.machine import print_machine
from measure.step_floors import count_work, device_rates, seconds_per_call
from multigrain_jax.losses.joint import joint_loss
from multigrain_jax.losses.sampling import Pairs, sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import BACKBONES, Variables, create_model
from multigrain_jax.ops.color import augment
from multigrain_jax.runtime import compiler_options
from multigrain_jax.terminal import outlive_readers
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import create_state, split_for_training
from multigrain_jax.train.step import PrepareImages, make_train_step

CLASSES = 1000
MAP_PASSES = 14
PARAMETER_BYTES = 6 * 4


class Built(NamedTuple):
    """The step as training builds it, and what it is made of."""

    step: Any  # jitted: its own type does not say that it can be lowered
    graphdef: nnx.GraphDef
    variables: Variables
    tx: optax.GradientTransformation
    pairs: Callable[[jax.Array, jax.Array, jax.Array], Pairs]
    prepare: PrepareImages


def build_step(
    options: argparse.Namespace,
    mesh: Mesh,
    xla_options: Mapping[str, str | bool],
) -> Built:
    """The jitted step for the options of `add_step_options`; nothing is compiled."""
    row = BACKBONES[options.backbone]
    group = options.group_size
    model = create_model(
        options.backbone,
        dtype=jnp.dtype(options.dtype),
        batch_norm_group_size=group,
    )
    graphdef, _, variables = split_for_training(model)
    tx = make_optimizer(0.01, momentum=0.9, weight_decay=1e-4)
    pairs = partial(
        sample_pairs,
        negative_sampling="reference",
        group_size=group,
        max_positives=max(1, options.repeats - 1),
    )
    prepare = partial(augment, augmentation="full", mean=row.mean, std=row.std)
    joint = options.repeats > 1
    step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=0,
        prepare_images=prepare,
        select_pairs=pairs if joint else lambda *_: None,
        classification_weight=0.5 if joint else 1.0,
        gradient_accumulation_steps=options.accumulation,
        compiler_options=xla_options,
    )
    return Built(step, graphdef, variables, tx, pairs, prepare)


class Own:
    """This package's step, compiled, with its state."""

    def __init__(self, options: argparse.Namespace):
        """Build the model, the batch and the step as training does."""
        # One device, as PyTorch's and as what its rates are measured of.
        mesh = make_mesh(1)
        built = build_step(
            options,
            mesh,
            compiler_options(
                BACKBONES[options.backbone], deterministic=options.deterministic
            ),
        )
        self.graphdef, self.variables = built.graphdef, built.variables
        self.pairs, self.prepare = built.pairs, built.prepare
        self.state = put_replicated(mesh, create_state(self.variables, built.tx))
        rng = np.random.default_rng(0)
        count, size = options.batch_size, options.size
        ids = np.arange(count, dtype=np.int32) // options.repeats
        arrays = {
            "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
            "label": (ids % CLASSES).astype(np.int32),
            "instance_id": ids,
        }
        self.batch = self.fed = put_batch(mesh, arrays)
        if options.accumulation > 1:
            parts = {
                name: a.reshape(options.accumulation, -1, *a.shape[1:])
                for name, a in arrays.items()
            }
            self.fed = put_batch(mesh, parts, axis=1)
        started = time.perf_counter()
        self.compiled = built.step.lower(self.state, self.fed).compile()
        self.compile_seconds = time.perf_counter() - started
        self.dim = BACKBONES[options.backbone].embedding_dim

    def step(self) -> jax.Array:
        """One update; returns the loss."""
        self.state, metrics = self.compiled(self.state, self.fed)
        return metrics["loss"]

    def host_seconds(self) -> float:
        """How long a call keeps the host, when the device has nothing else to do."""
        times = []
        for _ in range(5):
            jax.block_until_ready(self.step())
            started = time.perf_counter()
            loss = self.step()
            times.append(time.perf_counter() - started)
            jax.block_until_ready(loss)
        return min(times)

    def losses_alone(self, *, steps: int) -> float:
        """Seconds of sampling and margin loss with their gradient, on their own."""
        count = len(self.batch["label"])
        key = jax.random.key(1)
        embedding = jax.random.normal(key, (count, self.dim), jnp.float32)
        logits = jnp.zeros((count, CLASSES), jnp.float32)

        @jax.jit
        @jax.grad
        def gradient(embedding, ids, labels, key):
            length = jnp.linalg.norm(embedding, axis=1, keepdims=True)
            unit = embedding / (length + 1e-6)
            pairs = self.pairs(key, unit, ids)
            beta = jnp.float32(1.2)
            return joint_loss(
                logits, labels, unit, pairs, beta, classification_weight=0.0
            ).loss

        ids, labels = self.batch["instance_id"], self.batch["label"]
        return seconds_per_call(
            lambda: gradient(embedding, ids, labels, key), steps=steps
        )

    def augmentation_alone(self, *, steps: int) -> float:
        """Seconds of the augmentation on its own."""
        prepare = jax.jit(self.prepare)
        key = jax.random.key(1)
        return seconds_per_call(lambda: prepare(key, self.batch["image"]), steps=steps)

    def memory(self) -> tuple[str, float]:
        """What the peak is called, and its bytes."""
        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return "peak of the device", stats["peak_bytes_in_use"]
        analysis = self.compiled.memory_analysis()
        total = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
        return "arguments and temporaries", total


def measure_pytorch(options: argparse.Namespace) -> pytorch_step.Measured:
    """What measure/pytorch_step.py prints for the same update."""
    script = Path(__file__).with_name("pytorch_step.py")
    command = [sys.executable, str(script), "--backbone", options.backbone]
    for name in ("size", "batch_size", "group_size", "repeats", "steps"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    if options.dtype == "bfloat16":
        command.append("--bfloat16")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("PyTorch's step failed: see above, or give --own-only")
    return pytorch_step.Measured(**json.loads(done.stdout.splitlines()[-1]))


def print_own(own: Own, options: argparse.Namespace) -> float:
    """Measure this package's step and print; returns its seconds."""
    for _ in range(2):
        jax.block_until_ready(own.step())
    seconds = seconds_per_call(own.step, steps=options.steps)
    rate = options.batch_size / seconds
    what, peak = own.memory()
    print(f"compiled in {own.compile_seconds:.1f} s")
    print(f"this package       {rate:9.1f} images/s {1e3 * seconds:9.2f} ms")
    print(f"host, per step     {1e3 * own.host_seconds():9.2f} ms, the best of five")
    print(f"memory             {peak / 2**30:9.2f} GiB ({what})")
    if not options.step_only:
        print_parts(own, options, seconds)
        print_floors(own, options, seconds)
    return seconds


def print_parts(own: Own, options: argparse.Namespace, seconds: float) -> None:
    """Measure what is in a step on its own and print."""
    parts = {"augmentation": own.augmentation_alone(steps=options.steps)}
    if options.repeats > 1:
        parts["sampling + margin"] = own.losses_alone(steps=options.steps)
    for name, part in parts.items():
        share = part / seconds
        print(f"{name:<19}{1e3 * part:9.2f} ms on its own, {share:.1%} of the step")


def print_floors(own: Own, options: argparse.Namespace, seconds: float) -> None:
    """Measure the device's rates, and print how near the step is to them."""
    work = count_work(own.graphdef, own.variables, options.size)
    batch, width = options.batch_size, jnp.dtype(options.dtype).itemsize
    flops, copied = device_rates(jnp.dtype(options.dtype))
    needed = work.flops * batch
    moved = work.map_values * MAP_PASSES * width * batch
    moved += work.parameters * PARAMETER_BYTES
    print(
        f"operations         {work.forward_flops / 1e9:9.2f} GFLOP forward, "
        f"{work.flops / 1e9:.2f} in all per image; "
        f"{needed / seconds / 1e12:.3f} TFLOP/s = "
        f"{needed / flops / seconds:.0%} of this device's matrix product"
        f" ({flops / 1e12:.3f} TFLOP/s)"
    )
    print(
        f"bytes              {work.map_values / 1e6:9.2f} million map values per image,"
        f" {moved / 1e9:.2f} GB per step; {moved / seconds / 1e9:.1f} GB/s"
        f" = {moved / copied / seconds:.0%} of this device's copy"
        f" ({copied / 1e9:.1f} GB/s)"
    )
    floors = (1e3 * needed / flops, 1e3 * moved / copied)
    print(
        f"floors             {floors[0]:9.2f} ms operations, {floors[1]:.2f} ms bytes"
    )


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """Which step: the recipe's on one GPU, unless it is told otherwise."""
    names = list(pytorch_step.STAGES)
    parser.add_argument("--backbone", default="resnet50", choices=names)
    parser.add_argument("--size", type=at_least(1), default=224)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    parser.add_argument("--batch-size", type=at_least(1), default=512)
    parser.add_argument("--group-size", type=at_least(1), default=64)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument(
        "--accumulation", type=at_least(1), default=1, help="microbatches"
    )
    parser.add_argument("--deterministic", action="store_true")


def require_even_batch(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> None:
    """End where a batch does not consist of microbatches, and these of groups."""
    size, parts = options.batch_size, options.accumulation
    if size % parts:
        parser.error(
            f"--accumulation: found {parts}, expected a divisor of --batch-size {size}"
        )
    require_whole_groups(parser, size // parts, options.group_size)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The joint training step, two ways.")
    add_step_options(parser)
    parser.add_argument("--steps", type=at_least(1), default=10)
    parser.add_argument("--own-only", action="store_true", help="without PyTorch")
    parser.add_argument(
        "--step-only", action="store_true", help="without its parts and the floors"
    )
    options = parser.parse_args(arguments)
    require_even_batch(parser, options)
    if options.accumulation > 1 and not options.own_only:
        parser.error("--accumulation: PyTorch's step has none, give --own-only")
    load = os.getloadavg()[0]
    reference = None if options.own_only else measure_pytorch(options)
    device = jax.devices()[0]
    if reference and reference.platform != device.platform:
        raise SystemExit(
            f"JAX runs on {device.platform}, PyTorch on {reference.platform}: "
            "install both for the same device, or give --own-only"
        )
    print_machine(["jax", "flax", *(["torch"] if reference else [])], load=load)
    print(
        f"{options.backbone}, {options.size} x {options.size}, batch "
        f"{options.batch_size} in {options.accumulation}, groups of "
        f"{options.group_size}, R = {options.repeats}, {options.dtype}, one device"
    )
    if reference:
        theirs, peak = reference.seconds, reference.peak_bytes
        memory = f", {peak / 2**30:.2f} GiB at its peak" if peak else ""
        print(
            f"PyTorch            {options.batch_size / theirs:9.1f} images/s "
            f"{1e3 * theirs:9.2f} ms on {reference.device}{memory}",
            flush=True,
        )
    seconds = print_own(Own(options), options)
    if reference:
        print(f"ratio              {reference.seconds / seconds:9.2f}")


if __name__ == "__main__":
    outlive_readers()
    main()
