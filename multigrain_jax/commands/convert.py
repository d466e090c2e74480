"""`multigrain convert`: weights of PyTorch, of a file or by a published name."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from multigrain_jax.convert.conversion import format_table
from multigrain_jax.convert.convert import convert_checkpoint
from multigrain_jax.convert.heads.foreign import HeadOptions
from multigrain_jax.convert.heads.readers import HEADS, NO_HEAD
from multigrain_jax.convert.verify import Reference
from multigrain_jax.data.eval_batches import TEST_MODES
from multigrain_jax.errors import InputError
from multigrain_jax.weights import is_name, keep_weights

DESCRIPTION = r"""Convert PyTorch weights: the original's, timm's, your own script's.

{program} joint_3B_0.5.pth weights/joint_3B_0.5
{program} joint_3B_0.5    # downloads it, says where it is
{program} model_best.pth.tar weights/mine \
    --verify photo.jpg descriptor.npy --test-size 224
"""


def main(
    arguments: list[str] | None = None, *, program: str = "multigrain convert"
) -> int:
    """Convert; returns the exit code: 0 done, 2 bad input (nothing is written).

    Args:
        arguments: the words behind the program's name; None: the process'.
        program: what it was called by, for its help.
    """
    parser = _make_parser(program)
    options = parser.parse_args(arguments)
    of_files = (
        options.backbone,
        options.keep_background,
        options.no_ema,
        options.no_classifier,
        options.head,
        options.whitening,
        options.whitening_power,
        options.verify,
    )
    if is_name(options.source) and any(
        option not in (None, False) for option in of_files
    ):
        parser.error(f"{options.source}: a name takes no options; give the file itself")
    verify = None
    if options.verify is not None:
        photo, descriptor = options.verify
        verify = Reference(photo, descriptor, options.test_size, options.test_mode)
    usual = sys.stdout
    told = contextlib.redirect_stdout(sys.stderr if options.json else usual)
    try:
        with told:
            written = _convert(options, verify)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"written_to": written}))
    return 0


def _convert(options: argparse.Namespace, verify: Reference | None) -> str:
    """Convert what is asked for, and print what became of it; the new workdir."""
    if is_name(options.source) or options.destination is None:
        written = str(keep_weights(options.source, options.destination))
    else:
        written = options.destination
        conversion = convert_checkpoint(
            options.source,
            options.destination,
            backbone=options.backbone,
            keep_background=options.keep_background,
            averages=not options.no_ema,
            classifier=not options.no_classifier,
            head=options.head,
            head_options=HeadOptions(options.whitening, options.whitening_power),
            verify=verify,
        )
        print(format_table(conversion))
    print(f"written to {written}")
    return written


def _make_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", help="a file of torch.save or safetensors, or a published name"
    )
    parser.add_argument(
        "destination",
        nargs="?",
        help="new workdir; the weights are its step 0; for a name a copy, if wanted",
    )
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", help="override what the keys say")
    parser.add_argument(
        "--keep-background",
        action="store_true",
        help="keep row 0 of a 1001-class zoo classifier",
    )
    parser.add_argument(
        "--no-ema",
        action="store_true",
        help="take the last weights, not a running average of them",
    )
    parser.add_argument(
        "--no-classifier",
        action="store_true",
        help="leave out what is in the classifier's place: it is a projection",
    )
    parser.add_argument(
        "--head",
        choices=(*HEADS, NO_HEAD),
        help="whose descriptor head the file has (default: what the file says)",
    )
    parser.add_argument(
        "--whitening",
        metavar="NAME",
        help="which of a head's learned whitenings, or none (default: the only one)",
    )
    parser.add_argument(
        "--whitening-power",
        type=float,
        metavar="POWER",
        help="exponent of a PCA's variances, deep-image-retrieval only (default: 0.25)",
    )
    parser.add_argument(
        "--verify",
        nargs=2,
        type=Path,
        metavar=("PHOTO", "REFERENCE.npy"),
        help="write only if the photo's descriptor is this one, raw or of unit length",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print where it is as an object of JSON, all else to standard error",
    )
    parser.add_argument(
        "--test-size", type=int, help="of --verify (default: the backbone's)"
    )
    parser.add_argument(
        "--test-mode", choices=TEST_MODES, default="square", help="of --verify"
    )
