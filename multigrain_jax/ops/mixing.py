"""Mixtures of two images of a batch, on the device: mixup and CutMix.

Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", 2018
(arXiv 1710.09412): every pixel is share · own + (1 - share) · partner's. Yun, Han, Oh,
Chun, Choe and Yoo, "CutMix: regularization strategy to train strong classifiers", 2019
(arXiv 1905.04899): a rectangle of the partner's, of (1 - share) of the area.

A mixture is of no instance. So where instances are compared, one view of each is mixed
and the others are not, and the mixed one is marked as of none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from multigrain_jax.ops.erasing import inside

# The instance id of a sample that no instance loss sees.
NO_INSTANCE = -1
# Views that an instance has at least in its group where one of them is mixed: two are
# left, which are each other's positives.
VIEWS_OF_MIXED = 3


class MixedLabels(NamedTuple):
    """What a sample is besides its own label.

    Attributes:
        other: int32 [B], the label of the other image.
        share: float32 [B], of the sample's own image, in [0, 1]; 1: it is not mixed.
    """

    other: jax.Array
    share: jax.Array


class Mixed(NamedTuple):
    """A batch of which some images are mixtures.

    Attributes:
        images: [B, H, W, C].
        labels: what they are.
        instance_ids: int32 [B], `NO_INSTANCE` for mixtures where instances count.
    """

    images: jax.Array
    labels: MixedLabels
    instance_ids: jax.Array


def mix_views(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    instance_ids: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    group_size: int,
    instance_group_size: int | None,
) -> Mixed:
    """Mix views with the sample half a group further on.

    The order of samples is a lot already: a fixed partner is a random photo, and of
    another instance where those in a row fill no more than half of a group. A share
    is drawn for every sample from Beta(α, α), α that of the kind of mixture; with
    both kinds, each sample is of either with probability 1/2.

    Args:
        key: randomness; sample i of the batch always gets the same draws.
        images: [B, H, W, C], as the network takes them.
        labels: int32 [B].
        instance_ids: int32 [B].
        mixup_alpha: α of mixup; 0: none.
        cutmix_alpha: α of CutMix; 0: none.
        group_size: partners are in the same group of so many consecutive samples, those
            that share batch statistics; a smaller batch is one group.
        instance_group_size: of each instance with at least three views in a group of so
            many consecutive samples the last one is mixed, and is of no instance then;
            None: every view is mixed, and stays what it is.

    Raises:
        ValueError: no α is above 0.
    """
    batch, height, width, _ = images.shape
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise ValueError(
            f"mixing: found mixup_alpha = {mixup_alpha} and cutmix_alpha = "
            f"{cutmix_alpha}, expected one above 0"
        )
    share, weight = _draw(
        key, (batch, height, width), mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha
    )
    if instance_group_size is not None:
        chosen = last_views(instance_ids, group_size=instance_group_size)
        share = jnp.where(chosen, share, 1.0)
        weight = jnp.where(chosen[:, None, None], weight, 1.0)
        instance_ids = jnp.where(chosen, NO_INSTANCE, instance_ids)
    weight = weight[..., None].astype(images.dtype)
    # A weight of 1 or 0 leaves a pixel as it is, to the bit.
    mixed = weight * images + (1 - weight) * of_partners(images, group_size=group_size)
    other = of_partners(labels, group_size=group_size)
    return Mixed(mixed, MixedLabels(other, share), instance_ids)


def of_partners(values: jax.Array, *, group_size: int) -> jax.Array:
    """What the samples half a group further on have, [B, …], around within a group."""
    group = min(group_size, len(values))
    grouped = values.reshape(-1, group, *values.shape[1:])
    return jnp.roll(grouped, -(group // 2), axis=1).reshape(values.shape)


def last_views(instance_ids: jax.Array, *, group_size: int) -> jax.Array:
    """Which sample is the last of its instance's three or more in a group, bool [B]."""
    group = min(group_size, len(instance_ids))
    grouped = instance_ids.reshape(-1, group)
    same = grouped[:, :, None] == grouped[:, None, :]
    later = same & jnp.triu(jnp.ones((group, group), bool), 1)[None]
    enough = jnp.sum(same, axis=2, dtype=jnp.int32) >= VIEWS_OF_MIXED
    return (enough & ~jnp.any(later, axis=2)).reshape(-1)


def _draw(
    key: jax.Array,
    shape: tuple[int, int, int],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple[jax.Array, jax.Array]:
    """Shares, float32 [B], and the weight of every own pixel, float32 [B, H, W]."""
    kind_key, mixup_key, cutmix_key, place_key = jax.random.split(key, 4)
    batch, *sides = shape
    mixup = cutmix = None
    if mixup_alpha > 0:
        share = _draw_shares(mixup_key, mixup_alpha, batch)
        mixup = share, jnp.broadcast_to(share[:, None, None], shape)
    if cutmix_alpha > 0:
        share = _draw_shares(cutmix_key, cutmix_alpha, batch)
        whole = jnp.array(sides, jnp.float32)[None]
        half = jnp.floor(jnp.sqrt(1 - share)[:, None] * whole / 2)
        place = jax.random.uniform(place_key, (batch, 2), jnp.float32)
        center = jnp.floor(place * whole)
        start, stop = jnp.maximum(center - half, 0), jnp.minimum(center + half, whole)
        # The border may have cut the rectangle: the share is what is left.
        area = jnp.prod((stop - start) / whole, axis=1)
        outside = ~inside(start, stop, (sides[0], sides[1]))
        cutmix = 1 - area, outside.astype(jnp.float32)
    if mixup is None or cutmix is None:
        only = mixup or cutmix
        assert only is not None
        return only
    cut = jax.random.bernoulli(kind_key, 0.5, (batch,))
    return (
        jnp.where(cut, cutmix[0], mixup[0]),
        jnp.where(cut[:, None, None], cutmix[1], mixup[1]),
    )


def _draw_shares(key: jax.Array, alpha: float, count: int) -> jax.Array:
    """Draws from Beta(α, α), float32 [count]."""
    if alpha == 1:  # the uniform distribution, without the general one's rejections
        return jax.random.uniform(key, (count,), jnp.float32)
    return jax.random.beta(key, alpha, alpha, (count,), jnp.float32)
