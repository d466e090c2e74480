"""Copy detection on the quick start's test photos: a row per edit and checkpoint.

A copy of every test photo is made (centre crops of 50 % and 20 % of the area, JPEG of
quality 10, a turn by 15 degrees with a flip, shapes and text on it, a strong chain of
changes) and looks for its original among all test photos. Printed: the share of copies
whose nearest photo is the original, and mAP; of all pairs of a copy and a photo, ranked
together, the average precision (µAP), as it is and with scores normalised by another
split (--background), as the Image Similarity Challenge does. The first line is that of
the quick start alone, the second that of the whole recipe.

    python tools/measure_copies.py workdirs/quickstart --test-size 56 --test-mode square
    python tools/measure_copies.py workdirs/quickstart_p workdirs/quickstart_whiten

Of a checkpoint that has a running average of its weights (`ema_decay`), that is taken,
and a line says so; --raw takes the last weights.
"""

import argparse
import math
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.data.reading import Reading
from multigrain_jax.data.sources.quickstart import SPLITS, QuickstartSource
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.copy_detection import Background, copy_scores
from multigrain_jax.evaluation.embed import embed_source, make_embed_step
from multigrain_jax.mesh import make_mesh, put_replicated
from multigrain_jax.opened_model import open_model
from multigrain_jax.ops.refinement import REDUCTIONS, Reduction, require_neighbours
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.bounds import SMALLEST_IMAGE
from multigrain_jax.tasks.weights import say_which_weights
from multigrain_jax.terminal import outlive_readers

READING = Reading(num_workers=0, prefetch=4, timeout_s=600.0)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit code: 0, or 2 for what cannot be opened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", help="workdirs or step folders")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="the last weights also where a checkpoint has their average",
    )
    parser.add_argument("--test-size", type=int, default=80)
    parser.add_argument("--test-mode", default="rect", choices=TEST_MODES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--background", default="train", choices=SPLITS)
    parser.add_argument("--weight", type=float, default=2.0)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--reduction", default="nth", choices=REDUCTIONS)
    options = parser.parse_args(arguments)
    try:
        _refuse(options)
        source = QuickstartSource(options.split)
        unrelated = QuickstartSource(options.background)
        require_neighbours(options.neighbours, len(unrelated), key="--neighbours")
        print(f"{len(source)} photos, {options.test_mode} {options.test_size}")
        width = max(len("checkpoint"), *map(len, options.checkpoints)) + 2
        print(
            f"{'checkpoint':<{width}}{'copy':<21}{'recall@1':>8}{'mAP':>9}{'µAP':>9}{'normalised':>12}"
        )
        for checkpoint in options.checkpoints:
            found = measure(
                checkpoint,
                source,
                unrelated,
                normalization=(options.weight, options.neighbours, options.reduction),
                test_size=options.test_size,
                test_mode=options.test_mode,
                batch_size=options.batch_size,
                raw=options.raw,
            )
            for name, scores in found.items():
                print(
                    f"{checkpoint:<{width}}{name:<21}"
                    f"{scores['recall_at_1']:8.4f}{scores['map']:9.4f}"
                    f"{scores['micro_ap']:9.4f}{scores['micro_ap_normalized']:12.4f}",
                    flush=True,
                )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _refuse(options: argparse.Namespace) -> None:
    """Refuse numbers that cannot do, and photos that normalise their own scores."""
    for name, least in (("test_size", SMALLEST_IMAGE), ("batch_size", 1)):
        if (found := getattr(options, name)) < least:
            raise InputError(
                f"--{name.replace('_', '-')}: found {found}, expected {least} or more"
            )
    if not (math.isfinite(options.weight) and options.weight >= 0):
        raise InputError(
            f"--weight: found {options.weight:g}, expected a number of 0 or more"
        )
    if options.background == options.split:
        raise InputError(
            f"--background: found {options.background!r}, the photos of --split, "
            "expected others, by which scores are normalised; name another split"
        )


def measure(
    checkpoint: str,
    source: ImageSource,
    unrelated: ImageSource,
    *,
    normalization: tuple[float, int, Reduction],
    test_size: int,
    test_mode: str,
    batch_size: int,
    raw: bool,
) -> dict[str, dict[str, float]]:
    """The scores of every edit, by its name.

    Args:
        checkpoint: a workdir or a step folder.
        source: the photos, all of which are copied.
        unrelated: photos that nothing is a copy of.
        normalization: weight, neighbours and reduction, as of `normalize_scores`.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        batch_size: photos per step.
        raw: the weights of the last step also where there is their running average.
    """
    opened = open_model(checkpoint, raw=raw, dtype=compute_dtype("auto"))
    opened = opened.for_inference()
    say_which_weights(opened.checkpoint, raw=raw)
    mesh = make_mesh()
    backbone = opened.backbone
    embed = partial(
        embed_source,
        embed_step=make_embed_step(opened.graphdef, backbone=backbone, mesh=mesh),
        variables=put_replicated(mesh, opened.variables),
        backbone=backbone,
        test_size=test_size,
        test_mode=test_mode,
        batch_size=batch_size,
        reading=READING,
        mesh=mesh,
    )
    photos, everything = embed(source), np.arange(len(source))
    background = Background(embed(unrelated).descriptors, *normalization)
    return {
        name: copy_scores(
            embed, source, photos, everything, edit=edit, background=background
        )
        for name, edit in EDITS.items()
    }


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
