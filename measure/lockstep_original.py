"""Steps of training in float64, ours and the original's, on the same batches.

    python measure/lockstep_original.py CLONE --torchvision FOLDER --steps 40

CLONE and FOLDER are those of measure/against_original.py. Both sides start from the
same weights of ResNet-18, are given the same images and draw the same negatives, by a
rule; the network, pooling, losses, gradients, batch statistics and optimiser are each
one's own. Printed are the largest differences of losses, step by step, and of all
arrays at the end, relative to the largest value. The last digits part by rounding, as
sums are made in another order, and each step carries that on: it begins at some 1e-15.
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.against_original import check_original
from measure.arguments import at_least
from measure.machine import num_cores
from measure.original_runner import Task, prepare, read_task, run_in_clone
from measure.quality_table import markdown
from multigrain_jax.errors import InputError
from multigrain_jax.terminal import outlive_readers

RUN = (
    "import sys; from measure.lockstep_original import train_original; "
    "train_original(sys.argv[1])"
)
BATCH, REPEATS, CLASSES, SIDE = 24, 3, 10, 64
LOSSES = ("cross_entropy", "margin", "loss", "beta")
# β begins where a pair may be on either side of it; exact in float32.
RATE, MOMENTUM, DECAY, BETA, WEIGHT = 0.02, 0.9, 1e-4, 0.625, 0.5
START, THEIRS = "start.npz", "original.npz"


class Batch(NamedTuple):
    """Images float64 [B, S, S, 3], labels int32 [B], instances int32 [B]."""

    images: np.ndarray
    labels: np.ndarray
    instances: np.ndarray


def main(arguments: list[str] | None = None) -> int:
    """Train both and print; returns the exit code, 2 for what cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path, help="of the original")
    parser.add_argument("--torchvision", type=Path)
    parser.add_argument("--steps", type=at_least(1), default=40)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--threads", type=at_least(1), default=num_cores(), help="of PyTorch"
    )
    options = parser.parse_args(arguments)
    try:
        check_original(options.clone, options.torchvision)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours = train_ours(folder, steps=options.steps, seed=options.seed)
            task = Task(
                clone=str(options.clone.absolute()),
                torchvision=str(options.torchvision.absolute()),
                arguments=[str(options.steps)],
                num_classes=CLASSES,
                seed=options.seed,
                threads=options.threads,
            )
            run_in_clone(RUN, task, folder=folder, log_path=folder / "log.txt")
            with np.load(folder / THEIRS) as file:
                theirs = dict(file)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(ours, theirs))
    return 0


def batches(seed: int, steps: int) -> Iterator[Batch]:
    """The batches of both sides: three noisy views of each image."""
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        views = (BATCH // REPEATS, REPEATS, SIDE, SIDE, 3)
        images = rng.normal(size=(views[0], 1, *views[2:])) + 0.3 * rng.normal(
            size=views
        )
        labels = rng.integers(0, CLASSES, views[0], np.int32).repeat(REPEATS)
        instances = step * views[0] + np.arange(views[0], dtype=np.int32)
        yield Batch(
            images.reshape(BATCH, SIDE, SIDE, 3), labels, instances.repeat(REPEATS)
        )


def negatives(anchor: int, first_instance: int) -> np.ndarray:
    """Two samples of other instances, by rule.

    Args:
        anchor: position in the batch.
        first_instance: of the batch, which makes each step's others.
    """
    others = np.delete(np.arange(BATCH), anchor // REPEATS * REPEATS + np.arange(3))
    return others[(5 * np.arange(REPEATS - 1) + anchor + first_instance) % len(others)]


def fixed_pairs(key: Any, normalized: Any, instances: Any):
    """Our step's `Pairs`: all positives, and the negatives by rule."""
    import jax.numpy as jnp

    from multigrain_jax.losses.sampling import Pairs

    del key, normalized
    anchors, starts = np.arange(BATCH), range(BATCH - REPEATS)
    own = anchors[:, None] // REPEATS * REPEATS + np.arange(REPEATS)
    positive = own[own != anchors[:, None]].reshape(BATCH, REPEATS - 1)
    rule = np.array([[negatives(int(a), n) for a in anchors] for n in starts])
    negative = jnp.asarray(rule, jnp.int32)[instances[0] % len(starts)]
    drawn = jnp.ones((BATCH, REPEATS - 1), bool)
    return Pairs(jnp.asarray(positive, jnp.int32), negative, drawn)


def train_ours(folder: Path, *, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Losses [steps] and the arrays at the end, by the original's names.

    The arrays at the start go to a file of the folder.
    """
    import jax
    import jax.numpy as jnp

    from multigrain_jax.convert.state_dict import export_state_dict
    from multigrain_jax.mesh import make_mesh, put_batch, put_replicated
    from multigrain_jax.models.multigrain import create_model
    from multigrain_jax.train.optimizer import make_optimizer
    from multigrain_jax.train.state import (
        create_state,
        model_variables,
        split_for_training,
    )
    from multigrain_jax.train.step import make_train_step

    with jax.enable_x64(True):
        model = create_model(
            "resnet18", num_classes=CLASSES, pooling_exponent=3.0, dtype=jnp.float64
        )
        graphdef, _, variables = split_for_training(model)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        # The checker takes the arrays' names for options.
        savez: Any = np.savez
        savez(folder / START, **export_state_dict(variables, backbone="resnet18"))
        tx = make_optimizer(RATE, momentum=MOMENTUM, weight_decay=DECAY)
        mesh = make_mesh(1)
        step_of = make_train_step(
            graphdef,
            tx,
            mesh=mesh,
            seed=0,
            prepare_images=lambda key, images: images,
            select_pairs=fixed_pairs,
            classification_weight=WEIGHT,
        )
        state = put_replicated(mesh, create_state(variables, tx, beta=BETA))
        told: list[list[float]] = []
        for batch in batches(seed, steps):
            names = ("image", "label", "instance_id")
            given = put_batch(mesh, dict(zip(names, batch, strict=True)))
            state, metrics = step_of(state, given)
            told.append([float(metrics[name]) for name in LOSSES])
        arrays = export_state_dict(model_variables(state), backbone="resnet18")
    return {**dict(zip(LOSSES, np.transpose(told), strict=True)), **arrays}


def train_original(task_file: str) -> None:
    """The same by the clone's own modules, in its process; writes a file of both."""
    task = read_task(task_file)
    prepare(task)
    import torch

    lib, modules = (
        importlib.import_module(f"multigrain.{name}") for name in ("lib", "modules")
    )
    model = lib.get_multigrain("resnet18", p=3.0).double()
    with np.load(START) as file:
        model.load_state_dict({k: torch.from_numpy(v) for k, v in file.items()})
    margin = modules.MarginLoss(BETA)
    criterion = modules.MultiCriterion(
        {
            "cross_entropy": (
                torch.nn.CrossEntropyLoss(),
                ("classifier_output", "classifier_target"),
                WEIGHT,
            ),
            "margin": (
                margin,
                ("anchor_embeddings", "negative_embeddings", "positive_embeddings"),
                1 - WEIGHT,
            ),
        }
    ).double()
    optimisers = [
        torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM, weight_decay=decay)
        for parameters, decay in ((model.parameters(), DECAY), ([margin.beta], 0.0))
    ]
    told = []
    for batch in batches(task.seed, int(task.arguments[0])):
        np.random.choice = Rule(int(batch.instances[0]))
        images = torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy())
        outputs = model(images, torch.from_numpy(batch.instances))
        outputs["classifier_target"] = torch.from_numpy(batch.labels).long()
        losses = criterion(outputs)
        for optimiser in optimisers:
            optimiser.zero_grad()
        losses["loss"].backward()
        for optimiser in optimisers:
            optimiser.step()
        found = {**losses, "beta": margin.beta}
        told.append([float(found[name].detach()) for name in LOSSES])
    arrays = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    np.savez(THEIRS, **dict(zip(LOSSES, np.transpose(told), strict=True)), **arrays)


class Rule:
    """Stands for NumPy's choice of the negatives: each call is the next anchor's."""

    def __init__(self, first_instance: int):
        """Take the number of the batch's first instance."""
        self._first, self._anchor = first_instance, -1

    def __call__(
        self, count: int, size: int, p: Any = None, replace: bool = True
    ) -> np.ndarray:
        """The negatives by rule, however probable."""
        self._anchor += 1
        assert (count, size) == (BATCH, REPEATS - 1)
        return negatives(self._anchor, self._first)


def table(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> str:
    """Differences of the losses at some steps, and of all arrays at the end."""
    count = len(ours["loss"])
    shown = sorted({0, 1, 4, 9, 19, count - 1} & set(range(count)))
    rows = [
        [str(step + 1)]
        + [f"{difference(ours[n][step], theirs[n][step]):.1e}" for n in LOSSES]
        for step in shown
    ]
    arrays = [
        name for name in theirs if name not in LOSSES and "num_batches" not in name
    ]
    worst = max(arrays, key=lambda name: difference(ours[name], theirs[name]))
    largest = difference(ours[worst], theirs[worst])
    return (
        f"{markdown(['step', *LOSSES], rows)}\n\nAfter {count} steps the {len(arrays)} "
        f"arrays are within {largest:.1e} ({worst}); the loss went from "
        f"{ours['loss'][0]:.3f} to {ours['loss'][-1]:.3f}."
    )


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    expected = np.asarray(expected, np.float64)
    error = np.max(np.abs(np.asarray(found, np.float64) - expected))
    return float(error / max(float(np.max(np.abs(expected))), 1e-300))


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
