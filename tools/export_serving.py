"""Write a checkpoint as one file that JAX alone can serve: weights inside.

python tools/export_serving.py workdirs/quickstart quickstart.mgserve --test-size 56

The file takes uint8 photos [B, S, S, 3] of any batch size B and gives a dictionary of
`normalized_embedding`, `embedding` and, where there is a classifier, `logits`;
docs/serving.md has the loader. Needs the extra `serve`.

A file that ends in .onnx is an ONNX model of the same function, for one batch size
(--batch-size); it needs the extra `onnxruntime`, and ONNX Runtime or another engine for
ONNX runs it.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax import export

from multigrain_jax.data.bucket_paths import local_path
from multigrain_jax.engines.equation import Unsupported
from multigrain_jax.engines.tracing import to_onnx
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.engine_step import by_name
from multigrain_jax.files import write_atomically
from multigrain_jax.models.multigrain import merge_model
from multigrain_jax.opened_model import OpenedModel, open_model
from multigrain_jax.ops.color import normalize_pixels
from multigrain_jax.remedies import install
from multigrain_jax.tasks.bounds import SMALLEST_IMAGE
from multigrain_jax.terminal import outlive_readers

ONNX = ".onnx"
# Whether it is ONNX -> a package, what it is for, its extra.
NEEDS = {
    False: ("flatbuffers", "JAX writes", "serve"),
    True: ("onnx", "this tool writes", "onnxruntime"),
}
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
        "--platforms",
        nargs="+",
        choices=PLATFORMS,
        help="of a file for JAX (default: all)",
    )
    parser.add_argument(
        "--batch-size", type=int, help="B of an ONNX model (default: 1)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.test_size < SMALLEST_IMAGE:
            raise InputError(
                f"--test-size: found {options.test_size}, expected at least "
                f"{SMALLEST_IMAGE} pixels"
            )
        is_onnx = options.destination.lower().endswith(ONNX)
        _refuse_for_other_files(options, is_onnx)
        package, who, extra = NEEDS[is_onnx]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"the package {package}, with which {who} the file, is not "
                f"installed: {install(extra)}"
            )
        destination = local_path(options.destination, what="the file to write")
        opened = open_model(
            options.checkpoint,
            step=options.step,
            raw=options.raw,
            pooling_exponent=options.pooling_exponent,
        )
        data, what = _exported(opened, options, is_onnx)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    destination.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(destination) as file:
        file.write(data)
    print(
        f"{destination}: {opened.name} of {opened.checkpoint.path}, {what}, "
        f"{len(data):,} bytes"
    )
    return 0


def _refuse_for_other_files(options: argparse.Namespace, is_onnx: bool) -> None:
    """Refuse what the file that is asked for does not have."""
    if options.batch_size is not None and not is_onnx:
        raise InputError(
            f"--batch-size: found {options.batch_size} for a file for JAX, which takes "
            f"any; expected a destination that ends in {ONNX}, or leave it out"
        )
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(
            f"--batch-size: found {options.batch_size}, expected at least 1"
        )
    if options.platforms is not None and is_onnx:
        raise InputError(
            f"--platforms: found {' '.join(options.platforms)} for an ONNX model, "
            "which is for any; leave it out"
        )


def _exported(
    opened: OpenedModel, options: argparse.Namespace, is_onnx: bool
) -> tuple[bytes, str]:
    """The file's bytes, and what it takes."""
    size = options.test_size
    if not is_onnx:
        platforms: list[str] = options.platforms or list(PLATFORMS)
        exported = export_model(opened, size, platforms=platforms)
        what = f"uint8 [B, {size}, {size}, 3], for {', '.join(platforms)}"
        return bytes(exported.serialize()), what
    batch = options.batch_size or 1
    try:
        data = onnx_model(opened, size, batch_size=batch)
    except Unsupported as error:
        raise InputError(
            f"{opened.name}: no ONNX model can be made of it, found {error}; name a "
            "file for JAX"
        ) from error
    return data, f"uint8 [{batch}, {size}, {size}, 3], for engines of ONNX"


def export_model(
    opened: OpenedModel, test_size: int, *, platforms: list[str]
) -> export.Exported:
    """The embedding function of a model, for any batch size.

    Args:
        opened: the model; its weights become constants of the function.
        test_size: S, in pixels.
        platforms: which the function is compiled for when it is loaded there.
    """
    embed = _embedding_function(opened)
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, test_size, test_size, 3), jnp.uint8)
    return export.export(jax.jit(embed), platforms=platforms)(images)


def onnx_model(opened: OpenedModel, test_size: int, *, batch_size: int) -> bytes:
    """The same function as an ONNX model, of `images` uint8 [B, S, S, 3].

    Args:
        opened: the model; its weights are stored in it.
        test_size: S, in pixels.
        batch_size: B.
    """
    embed = _embedding_function(opened)
    shape = (batch_size, test_size, test_size, 3)
    return to_onnx(
        lambda inputs: embed(inputs["images"]),
        {"images": jax.ShapeDtypeStruct(shape, jnp.uint8)},
    )


def _embedding_function(
    opened: OpenedModel,
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    backbone = opened.backbone
    opened = opened.for_inference()

    def embed(images: jax.Array) -> dict[str, jax.Array]:
        model = merge_model(opened.graphdef, opened.variables)
        normalized = normalize_pixels(images, backbone.mean, backbone.std)
        return by_name(model(normalized))

    return embed


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
