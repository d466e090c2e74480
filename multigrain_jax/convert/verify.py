"""Compares the descriptor of a photo with one that its owner brings."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multigrain_jax.data.decoding import VIEWER, UndecodableImageError, decode
from multigrain_jax.errors import InputError
from multigrain_jax.inference import LoadedModel

# Another library's convolutions stay far within these, other weights, another network
# or another resizing do not.
SMALLEST_COSINE = 0.9999
LARGEST_DIFFERENCE = 1e-3  # of a number or the length, as a share of the length
UNIT_TOLERANCE = 1e-3  # by which the length of a normalised descriptor may be off
TINY = 1e-30  # in place of a length of 0


@dataclass(frozen=True)
class Reference:
    """A descriptor that its owner brings, and what it is of.

    Attributes:
        photo: an image file.
        descriptor: a .npy file of one vector, raw or of unit length.
        test_size: S, in pixels; None is the one that the backbone was designed for.
        test_mode: "square" or "rect", as of `preprocess`.
    """

    photo: Path
    descriptor: Path
    test_size: int | None
    test_mode: str


class Agreement(NamedTuple):
    """How near a model's descriptor is to the one that was brought.

    Attributes:
        compared: "embedding" or "normalized_embedding": which of the two it is.
        cosine: of the angle between them.
        difference: the largest of a number or of the length, as a share of the
            reference's length.
    """

    compared: str
    cosine: float
    difference: float


def compare_with_reference(
    model: LoadedModel, reference: Reference, *, test_size: int
) -> Agreement:
    """Compute the descriptor of the photo, and compare.

    Args:
        model: the model.
        reference: the descriptor that was brought; of unit length it is compared with
            `normalized_embedding`, else with `embedding`.
        test_size: S, in pixels.

    Raises:
        InputError: a photo or a descriptor that is none, or descriptors that differ.
    """
    wanted = _read_vector(reference.descriptor)
    image = model.preprocess(
        _read_photo(reference.photo), test_size, reference.test_mode
    )
    output = model(image[None])
    length = float(np.linalg.norm(wanted))
    is_unit = abs(length - 1) <= UNIT_TOLERANCE
    compared = "normalized_embedding" if is_unit else "embedding"
    found = np.asarray(getattr(output, compared)[0], np.float64)
    if found.shape != wanted.shape:
        raise InputError(
            f"{reference.descriptor}: found {wanted.size} numbers, expected the "
            f"{found.size} of this network's descriptor"
        )
    found_length = float(np.linalg.norm(found))
    differences = [*np.abs(found - wanted), abs(found_length - length)]
    agreement = Agreement(
        compared=compared,
        cosine=float(found @ wanted / max(found_length * length, TINY)),
        difference=float(max(differences) / length),
    )
    if not (
        agreement.cosine >= SMALLEST_COSINE
        and agreement.difference <= LARGEST_DIFFERENCE
    ):
        raise InputError(
            f"{reference.descriptor}: the {compared} of {reference.photo} "
            f"({reference.test_mode}, {test_size} pixels) does not agree: cosine "
            f"{agreement.cosine:.6f}, largest difference {agreement.difference:.1e} of "
            f"its length, expected at least {SMALLEST_COSINE} and at most "
            f"{LARGEST_DIFFERENCE:g}; was it made at another size, in another mode, "
            "with another p, or by another network? Nothing was written"
        )
    return agreement


def _read_photo(path: Path):
    try:
        return decode(path.read_bytes(), VIEWER)
    except (OSError, UndecodableImageError) as error:
        raise InputError(f"{path}: a photo was expected ({error})") from error


def _read_vector(path: Path) -> np.ndarray:
    """One vector as float64 [D]; axes of length 1 do not count."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # A damaged header may be wrong in any way.
        raise InputError(
            f"{path}: a .npy file of one descriptor was expected ({error})"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise InputError(
            f"{path}: a .npy file of floats was expected, found "
            f"{getattr(array, 'dtype', 'an archive of several arrays')}"
        )
    vector = np.array(array, np.float64).squeeze()
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise InputError(
            f"{path}: found {array.dtype}{list(array.shape)}, expected the descriptor "
            "of one photo, of finite numbers that are not all 0"
        )
    return vector
