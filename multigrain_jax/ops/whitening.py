"""PCA whitening of embeddings, fitted in a stream, and folded into the classifier.

In float64 NumPy: the covariance of unit vectors has eigenvalues that differ by many
orders of magnitude. Jégou and Chum, "Negative evidences and co-occurrences in image
retrieval: the benefit of PCA and whitening", ECCV 2012; MultiGrain, section 3.5.
"""

from typing import NamedTuple

import numpy as np

from multigrain_jax.errors import InputError

# Eigenvalues below this share of their mean are no more than rounding of float32.
NEAR_ZERO = 1e-9


class Moments(NamedTuple):
    """What is known of n vectors without keeping them.

    Attributes:
        count: n.
        mean: float64 [D].
        scatter: float64 [D, D], the sum of (x - mean) (x - mean)ᵀ.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray


class PcaWhitening(NamedTuple):
    """Whitened x: (x - mean) @ projection.

    Attributes:
        mean: float64 [D].
        projection: float64 [D, K].
        inverse: float64 [K, D], the inverse of the projection where K = D.
        eigenvalues: float64 [D], variances along all principal axes, descending, as
            measured.
    """

    mean: np.ndarray
    projection: np.ndarray
    inverse: np.ndarray
    eigenvalues: np.ndarray


def empty_moments(dim: int) -> Moments:
    """The moments of no vectors of `dim` dimensions."""
    return Moments(0, np.zeros(dim), np.zeros((dim, dim)))


def add_to_moments(moments: Moments, vectors: np.ndarray) -> Moments:
    """The moments with [n, D] more vectors.

    By the update of Chan, Golub and LeVeque (1983), which does not lose digits where
    the mean is far above the deviations.
    """
    vectors = np.asarray(vectors, np.float64)
    if not len(vectors):
        return moments
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    count = moments.count + len(vectors)
    shift = mean - moments.mean
    between = np.outer(shift, shift) * (moments.count * len(vectors) / count)
    return Moments(
        count,
        moments.mean + shift * (len(vectors) / count),
        moments.scatter + centred.T @ centred + between,
    )


def scatter_around(moments: Moments, centre: np.ndarray) -> np.ndarray:
    """The sum of (x - centre) (x - centre)ᵀ over the vectors: float64 [D, D].

    Of several sets of vectors these add up, where the centre is the mean of them all.
    """
    shift = moments.mean - centre
    return moments.scatter + moments.count * np.outer(shift, shift)


def fit_pca_whitening(
    moments: Moments,
    *,
    num_components: int | None = None,
    eigenvalue_floor: float = 0.0,
) -> PcaWhitening:
    """PCA with components scaled to variance 1: P = V diag(s)^(-1/2).

    s are the eigenvalues of the covariance (n - 1 in its denominator).

    Args:
        moments: of at least D + 1 vectors, or of fewer with an `eigenvalue_floor`.
        num_components: K, the directions of largest variance that are kept; None is
            all D.
        eigenvalue_floor: smaller eigenvalues are raised to this share of their mean.

    Raises:
        InputError: too few vectors, or directions without variance; the message has
            the numbers.
    """
    dim = len(moments.mean)
    components = dim if num_components is None else num_components
    if not 1 <= components <= dim:
        raise InputError(
            f"num_components: found {num_components}, expected 1 to {dim}, the "
            "dimensions of the embedding with its constant channel"
        )
    if moments.count < 2 or (eigenvalue_floor == 0 and moments.count < dim):
        needed = dim if eigenvalue_floor == 0 else 2
        raise InputError(
            f"whitening: {moments.count} images found, at least {needed} expected for "
            f"{dim} dimensions; give more images, or raise the small eigenvalues with "
            "eigenvalue_floor (1e-3, say)"
        )
    values, vectors = np.linalg.eigh(moments.scatter / (moments.count - 1))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    mean_value = values.mean()
    raised = np.maximum(values, eigenvalue_floor * mean_value)[:components]
    flat = int(np.sum(raised <= NEAR_ZERO * mean_value))
    if flat:
        raise InputError(
            f"whitening: {flat} of {components} directions have (nearly) no variance, "
            f"the smallest {values[components - 1]:.3g} against {mean_value:.3g} on "
            f"average, over {moments.count} images; more than {NEAR_ZERO:g} of the "
            "average was expected: give more or more varied images, fewer "
            "num_components, or an eigenvalue_floor (1e-3, say)"
        )
    roots = np.sqrt(raised)
    kept = vectors[:, :components]
    return PcaWhitening(
        mean=moments.mean,
        projection=kept / roots,
        inverse=roots[:, None] * kept.T,
        eigenvalues=values,
    )


def pass_channel_through(whitening: PcaWhitening) -> PcaWhitening:
    """The whitening with one more channel, the last, that it leaves as it is."""

    def bordered(matrix: np.ndarray) -> np.ndarray:
        grown = np.zeros((matrix.shape[0] + 1, matrix.shape[1] + 1))
        grown[:-1, :-1] = matrix
        grown[-1, -1] = 1.0
        return grown

    return PcaWhitening(
        mean=np.append(whitening.mean, 0.0),
        projection=bordered(whitening.projection),
        inverse=bordered(whitening.inverse),
        eigenvalues=whitening.eigenvalues,
    )


def fold_into_classifier(
    kernel: np.ndarray, bias: np.ndarray, whitening: PcaWhitening
) -> tuple[np.ndarray, np.ndarray]:
    """A classifier that reads whitened embeddings and gives the same logits.

    With x = [embedding, 1] / ‖[embedding, 1]‖ the new logits are the old ones divided
    by that norm: the order of the classes stays, the softmax's temperature does not.
    From x = e P⁻¹ + m: the kernel becomes P⁻¹ [W; b], the bias m [W; b].

    Args:
        kernel: W [D, classes].
        bias: b [classes].
        whitening: of the D + 1 channels of x, complete (K = D + 1).

    Returns:
        Kernel [D + 1, classes] and bias [classes], float64.
    """
    extended = np.concatenate([kernel, bias[None]]).astype(np.float64)
    return whitening.inverse @ extended, whitening.mean @ extended
