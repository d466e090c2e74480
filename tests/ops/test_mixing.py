import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multigrain_jax.mesh import batch_sharding, make_mesh, put_batch
from multigrain_jax.ops.mixing import last_views, mix_views, of_partners

BATCH, GROUP, HEIGHT, WIDTH = 96, 16, 12, 9
LABELS = np.arange(BATCH, dtype=np.int32) % 7
# Three views of each photo; the groups of 16 cut some instances.
INSTANCES = np.arange(BATCH, dtype=np.int32) // 3
PARTNERS = np.arange(BATCH).reshape(-1, GROUP)
PARTNERS = np.roll(PARTNERS, -GROUP // 2, axis=1).reshape(-1)
# α = 1 compiles in a moment; the other distributions have a test of their own.
KINDS = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0), "both": (1.0, 1.0)}
IMAGES = np.random.default_rng(0).uniform(1, 2, (BATCH, HEIGHT, WIDTH, 3))
IMAGES = IMAGES.astype(np.float32)


def mixing(kind, *, instance_group_size=None, group_size=GROUP):
    mixup_alpha, cutmix_alpha = KINDS[kind]
    return partial(
        mix_views,
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        group_size=group_size,
        instance_group_size=instance_group_size,
    )


@pytest.fixture(scope="module")
def mixed():
    """(kind, instance group) -> a mixed batch; each compiled once."""
    found = {}

    def mix(kind, instance_group_size=None):
        name = kind, instance_group_size
        if name not in found:
            run = jax.jit(mixing(kind, instance_group_size=instance_group_size))
            batch = run(jax.random.key(1), IMAGES, LABELS, INSTANCES)
            found[name] = jax.tree.map(np.asarray, batch)
        return found[name]

    return mix


def own_pixels(images):
    """Where a mixture has its own pixel, where its partner's; bool [B, H, W] each."""
    return (
        np.all(np.equal(images, IMAGES), axis=-1),
        np.all(np.equal(images, IMAGES[PARTNERS]), axis=-1),
    )


def test_mixup_is_the_weighted_mean_of_two_images(mixed):
    images, (other, share), instances = mixed("mixup")
    weight = share[:, None, None, None]
    want = weight * IMAGES + (1 - weight) * IMAGES[PARTNERS]
    np.testing.assert_allclose(images, want, rtol=1e-6)
    np.testing.assert_array_equal(other, LABELS[PARTNERS])
    np.testing.assert_array_equal(instances, INSTANCES)


def test_cutmix_pastes_a_rectangle_and_its_share_is_what_is_left(mixed):
    images, (other, share), _ = mixed("cutmix")
    own, partners = own_pixels(images)
    assert np.logical_or(own, partners).all()
    np.testing.assert_allclose(own.mean(axis=(1, 2)), share, rtol=0, atol=1e-6)
    rows, columns = partners.any(axis=2), partners.any(axis=1)
    np.testing.assert_array_equal(partners, rows[:, :, None] & columns[:, None, :])
    np.testing.assert_array_equal(other, LABELS[PARTNERS])
    assert 0.2 < share.mean() < 0.8


def test_with_both_kinds_a_sample_is_of_one_of_them(mixed):
    images, (_, share), _ = mixed("both")
    own, partners = own_pixels(images)
    by_cut = np.logical_or(own, partners).all(axis=(1, 2))
    assert 28 < by_cut.sum() < 68  # four standard deviations around a half
    weight = share[~by_cut, None, None, None]
    want = weight * IMAGES[~by_cut] + (1 - weight) * IMAGES[PARTNERS][~by_cut]
    np.testing.assert_allclose(images[~by_cut], want, rtol=1e-6)
    np.testing.assert_allclose(own[by_cut].mean(axis=(1, 2)), share[by_cut], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    count = 2000
    mix = partial(
        mix_views,
        mixup_alpha=alpha,
        cutmix_alpha=0.0,
        group_size=count,
        instance_group_size=None,
    )
    ids = np.zeros(count, np.int32)
    images = np.zeros((count, 1, 1, 3), np.float32)
    share = np.asarray(jax.jit(mix)(jax.random.key(2), images, ids, ids).labels.share)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(variance / count)
    assert abs(share.var() - variance) < 0.02
    assert share.min() >= 0
    assert share.max() <= 1


@pytest.mark.parametrize("group_size", [GROUP, 48, 1000])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_one_view_of_an_instance_is_mixed_and_the_others_stay_themselves(
    mixed, kind, group_size
):
    images, (_, share), instances = mixed(kind, group_size)
    chosen = np.zeros(BATCH, bool)
    for first in range(0, BATCH, min(group_size, BATCH)):
        group = INSTANCES[first : first + group_size]
        for instance in set(group.tolist()):
            (places,) = np.nonzero(group == instance)
            if len(places) >= 3:
                chosen[first + places[-1]] = True
    assert chosen.any()
    np.testing.assert_array_equal(instances, np.where(chosen, -1, INSTANCES))
    np.testing.assert_array_equal(images[~chosen], IMAGES[~chosen])
    assert (share[~chosen] == 1).all()
    assert (share[chosen] < 1).mean() > 0.8
    # Whoever had another view in the group still has one.
    assert chosen.sum() <= BATCH // 3


def test_with_two_views_none_is_mixed():
    ids = np.arange(BATCH, dtype=np.int32) // 2
    assert not np.any(last_views(jnp.asarray(ids), group_size=GROUP))
    # The same instance in two groups counts in each on its own.
    ids = np.tile(np.array([5, 5], np.int32), BATCH // 2)
    assert np.sum(last_views(jnp.asarray(ids), group_size=GROUP)) == BATCH // GROUP
    assert not np.any(last_views(jnp.asarray(ids), group_size=2))


@pytest.mark.parametrize("group_size", [1, 5, 16, 40, 1000])
def test_partners_are_others_of_the_same_group_each_once(group_size):
    batch = 80
    partners = np.asarray(of_partners(jnp.arange(batch), group_size=group_size))
    group = min(group_size, batch)
    np.testing.assert_array_equal(np.sort(partners), np.arange(batch))
    np.testing.assert_array_equal(partners // group, np.arange(batch) // group)
    assert (partners != np.arange(batch)).all() == (group > 1)


def test_the_mixtures_do_not_depend_on_the_devices():
    arrays = {"images": IMAGES, "labels": LABELS, "instance_ids": INSTANCES}
    results = []
    for count in (1, 8):
        # 12 samples a device: groups of 16 lie on two.
        mix = jax.jit(mixing("both", instance_group_size=48))
        batch = mix(jax.random.key(3), **put_batch(make_mesh(count), arrays))
        results.append(jax.tree.map(np.asarray, batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)
    np.testing.assert_array_equal(results[0].labels.share, results[1].labels.share)


# Twelve samples a device: groups of 12 lie in one, of 24 on two.
@pytest.mark.parametrize(("group_size", "travels"), [(12, False), (24, True)])
def test_images_travel_to_their_partner_alone_and_not_within_a_device(
    group_size, travels
):
    mesh = make_mesh(8)
    arrays = {"images": IMAGES, "labels": LABELS, "instance_ids": INSTANCES}
    mix = jax.jit(
        mixing("mixup", group_size=group_size),
        out_shardings=batch_sharding(mesh),
    )
    program = mix.lower(jax.random.key(0), **put_batch(mesh, arrays)).compile()
    moved = [
        line
        for line in (program.as_text() or "").splitlines()
        if re.search(r" (all-gather|all-to-all|all-reduce|collective-\w+)\(", line)
        and f",{HEIGHT},{WIDTH},3]" in line
    ]
    assert bool(moved) == travels
    assert all(" collective-permute(" in line for line in moved)


def test_narrow_images_keep_their_dtype_and_no_kind_is_refused():
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    ids = jnp.asarray(INSTANCES)
    got = jax.jit(mixing("mixup"))(jax.random.key(0), images, ids, ids)
    assert got.images.dtype == jnp.bfloat16
    assert got.labels.share.dtype == jnp.float32
    mix = partial(mixing("both"), mixup_alpha=0.0, cutmix_alpha=0.0)
    with pytest.raises(ValueError, match="expected one above 0"):
        jax.eval_shape(mix, jax.random.key(0), images, ids, ids)
