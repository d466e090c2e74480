"""Write a checkpoint as one file that JAX alone can serve: weights inside.

python tools/export_serving.py workdirs/quickstart quickstart.mgserve --test-size 56

The file takes uint8 photos [B, S, S, 3] of any batch size B and gives a dictionary of
`normalized_embedding`, `embedding` and, where there is a classifier, `logits`;
docs/serving.md has the loader. Needs the extra `serve`.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax import export

from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically
from multigrain_jax.models.multigrain import merge_model
from multigrain_jax.opened_model import OpenedModel, open_model
from multigrain_jax.ops.color import normalize_pixels
from multigrain_jax.tasks.bounds import SMALLEST_IMAGE
from multigrain_jax.terminal import outlive_readers

PLATFORMS = ("cpu", "cuda", "tpu")


def main(arguments: list[str] | None = None) -> int:
    """Export; returns the exit code: 0 done, 2 bad input (nothing is written)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="workdir or step folder")
    parser.add_argument("destination", help="the file to write")
    parser.add_argument("--step", type=int, help="step of a workdir (default: newest)")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="the last weights, also where their running average is kept",
    )
    parser.add_argument("--test-size", type=int, default=224, help="S, in pixels")
    parser.add_argument("--pooling-exponent", type=float, help="p (default: its own)")
    parser.add_argument(
        "--platforms", nargs="+", choices=PLATFORMS, default=list(PLATFORMS)
    )
    options = parser.parse_args(arguments)
    try:
        if options.test_size < SMALLEST_IMAGE:
            raise InputError(
                f"--test-size: found {options.test_size}, expected at least "
                f"{SMALLEST_IMAGE} pixels"
            )
        if importlib.util.find_spec("flatbuffers") is None:
            raise InputError(
                "the package flatbuffers, with which JAX writes the file, is not "
                "installed: pip install -e '.[serve]'"
            )
        destination = local_path(options.destination, what="the file to write")
        opened = open_model(
            options.checkpoint,
            step=options.step,
            raw=options.raw,
            pooling_exponent=options.pooling_exponent,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    exported = export_model(opened, options.test_size, platforms=options.platforms)
    data = exported.serialize()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(destination) as file:
        file.write(data)
    print(
        f"{destination}: {opened.name} of {opened.checkpoint.path}, "
        f"uint8 [B, {options.test_size}, {options.test_size}, 3], for "
        f"{', '.join(options.platforms)}, {len(data):,} bytes"
    )
    return 0


def export_model(
    opened: OpenedModel, test_size: int, *, platforms: list[str]
) -> export.Exported:
    """The embedding function of a model, for any batch size.

    Args:
        opened: the model; its weights become constants of the function.
        test_size: S, in pixels.
        platforms: which the function is compiled for when it is loaded there.
    """
    backbone = opened.backbone
    opened = opened.for_inference()
    model = merge_model(opened.graphdef, opened.variables)

    def embed(images: jax.Array) -> dict[str, jax.Array]:
        normalized = normalize_pixels(images, backbone.mean, backbone.std)
        output = model(normalized)._asdict()
        return {name: value for name, value in output.items() if value is not None}

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, test_size, test_size, 3), jnp.uint8)
    return export.export(jax.jit(embed), platforms=platforms)(images)


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
