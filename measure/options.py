"""What each option of training adds to a step, in % of the plain one.

Of the options in docs/options.md and docs/views.md.

One update of a ResNet with R augmentations per image, λ = 0.5, p = 3, `full`
augmentation on the device; the batch lies on the device already. Steps with and without
an option take turns, round by round: each round gives a ratio to the plain step of the
same round, and the table their median and quartiles. On a CPU the times are the
processor's, which others on the machine disturb less; elsewhere those of the clock.

    python measure/options.py --backbone resnet18 --size 48 --batch-size 48 \
        --group-size 48 --dtype float32                           # a CPU
    python measure/options.py                                     # a GPU
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from measure.arguments import at_least, require_whole_groups
from measure.machine import print_machine
from multigrain_jax.losses.infonce import infonce_loss
from multigrain_jax.losses.koleo import koleo_loss
from multigrain_jax.losses.sampling import sample_pairs
from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import BACKBONES, create_model
from multigrain_jax.runtime import compiler_options
from multigrain_jax.tasks.train_views import make_mix_views, make_prepare_images
from multigrain_jax.terminal import outlive_readers
from multigrain_jax.train.optimizer import make_optimizer
from multigrain_jax.train.state import create_state, split_for_training, with_average
from multigrain_jax.train.step import make_train_step

CLASSES = 1000
PLAIN = "plain"
# The first is what the others are compared with.
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "plain again": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "decay_norms=False": {"decay_norms": False},
    "instance_loss=infonce": {"infonce": True},
    "koleo_weight": {"koleo": True},
    "ema_decay": {"ema": True},
    "optimizer=lars": {"optimizer": "lars"},
    "optimizer=lamb": {"optimizer": "lamb"},
    "random_erasing": {"random_erasing": 0.25},
    "mixup_alpha": {"mixup_alpha": 0.2},
    "cutmix_alpha": {"cutmix_alpha": 1.0},
    "both mixtures": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
    "all but the optimiser": {
        "random_erasing": 0.25,
        "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0,
        "label_smoothing": 0.1,
        "decay_norms": False,
        "infonce": True,
        "koleo": True,
        "ema": True,
    },
}


def build(
    options: argparse.Namespace, mesh: Mesh, variant: dict[str, Any]
) -> Callable[[], jax.Array]:
    """The compiled step of one variant; a call makes an update and returns the loss."""
    row, group = BACKBONES[options.backbone], options.group_size
    model = create_model(
        options.backbone,
        num_classes=CLASSES,
        pooling_exponent=3.0,
        dtype=jnp.dtype(options.dtype),
        batch_norm_group_size=group,
    )
    graphdef, _, variables = split_for_training(model)
    tx = make_optimizer(
        0.01,
        optimizer=variant.get("optimizer", "sgd"),
        momentum=0.9,
        weight_decay=1e-4,
        decay_norms=variant.get("decay_norms", True),
    )
    pairs = partial(
        sample_pairs,
        negative_sampling="reference",
        group_size=group,
        max_positives=options.repeats - 1,
    )
    infonce = partial(infonce_loss, temperature=0.05, group_size=group)
    views = view_settings(options, variant)
    has_infonce = variant.get("infonce", False)
    step = make_train_step(
        graphdef,
        tx,
        mesh=mesh,
        seed=0,
        prepare_images=make_prepare_images(views),
        mix_views=make_mix_views(views),
        select_pairs=(lambda *_: None) if has_infonce else pairs,
        classification_weight=0.5,
        label_smoothing=variant.get("label_smoothing", 0.0),
        infonce=infonce if has_infonce else None,
        koleo=partial(koleo_loss, group_size=group) if "koleo" in variant else None,
        koleo_weight=0.1,
        ema_decay=0.999,
        compiler_options=compiler_options(row, deterministic=False),
    )
    state = create_state(variables, tx)
    state = put_replicated(mesh, with_average(state) if "ema" in variant else state)
    batch = put_batch(mesh, make_batch(options))

    def update() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics["loss"]

    return update


def view_settings(
    options: argparse.Namespace, variant: dict[str, Any]
) -> dict[str, Any]:
    """The keys of a recipe that say what becomes of crops on the device."""
    keys = ("random_erasing", "mixup_alpha", "cutmix_alpha")
    return {
        **{key: variant.get(key, 0.0) for key in keys},
        "backbone": options.backbone,
        "augmentation": "full",
        "classification_weight": 0.5,
        "koleo_weight": 0.1,
        "batch_norm_group_size": options.group_size,
        "sampling_group_size": options.group_size,
    }


def make_batch(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Random images, R of each instance."""
    count, size = options.batch_size, options.size
    ids = np.arange(count, dtype=np.int32) // options.repeats
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), np.uint8),
        "label": (ids % CLASSES).astype(np.int32),
        "instance_id": ids,
    }


def seconds_of(update: Callable[[], jax.Array], *, steps: int) -> float:
    """Per step: of the processor on a CPU, of the clock elsewhere."""
    on_cpu = jax.default_backend() == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    started = clock()
    for _ in range(steps):
        loss = update()
    jax.block_until_ready(loss)
    return (clock() - started) / steps


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=tuple(BACKBONES), default="resnet50")
    parser.add_argument(
        "--size", type=at_least(1), default=224, help="of the crops, pixels"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=512)
    parser.add_argument("--group-size", type=at_least(1), default=64)
    parser.add_argument("--repeats", type=at_least(2), default=3, help="R, at least 2")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=at_least(1), default=9)
    parser.add_argument("--steps", type=at_least(1), default=4, help="steps per round")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS)
    )
    options = parser.parse_args(arguments)
    require_whole_groups(parser, options.batch_size, options.group_size)
    print_machine(["jax", "flax", "optax"])
    mesh = make_mesh(1)
    chosen = {n: v for n, v in VARIANTS.items() if n == PLAIN or n in options.only}
    updates = {name: build(options, mesh, v) for name, v in chosen.items()}
    for update in updates.values():
        for _ in range(2):  # compiles, and then once more
            jax.block_until_ready(update())
    rounds = [
        [seconds_of(update, steps=options.steps) for update in updates.values()]
        for _ in range(options.rounds)
    ]
    seconds = np.asarray(rounds)
    plain = seconds[:, 0]
    print(
        f"{options.backbone}, {options.dtype}, {options.batch_size} crops of "
        f"{options.size}, R = {options.repeats}; plain: "
        f"{1e3 * np.median(plain):.1f} ms a step"
    )
    print(f"{'option':<24}{'% more':>9}{'quartiles':>18}")
    for name, own in zip(updates, seconds.T, strict=True):
        low, middle, high = np.percentile(100 * (own / plain - 1), (25, 50, 75))
        print(f"{name:<24}{middle:>9.1f}{low:>9.1f} to{high:>6.1f}")
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
