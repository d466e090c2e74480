import jax
import numpy as np
import pytest
from helpers.configs import small_train_config

from configs import base
from multigrain_jax.data.repeated import KnownInstances, RepeatedStream
from multigrain_jax.tasks.train_views import (
    make_mix_views,
    make_prepare_images,
    mixing_problems,
)


def test_erasing_leaves_the_other_draws_of_a_view_as_they_are(photo_folder):
    images = np.random.default_rng(0).integers(0, 256, (16, 33, 33, 3), np.uint8)

    def prepared(share):
        config = small_train_config(
            photo_folder, augmentation="torch", random_erasing=share
        )
        prepare = jax.jit(make_prepare_images(config.to_dict()))
        return np.asarray(prepare(jax.random.key(3), images))

    plain, erased = prepared(0.0), prepared(0.5)
    gone = np.all(erased == 0, axis=-1)
    # Two programs may round the normalisation's sum and product once or twice.
    np.testing.assert_allclose(erased[~gone], plain[~gone], rtol=0, atol=1e-6)
    assert 3 < gone.any(axis=(1, 2)).sum() < 13


def config(**changes):
    return base.get_config().to_dict() | changes


def test_by_default_nothing_is_mixed():
    assert make_mix_views(config()) is None
    assert mixing_problems(config()) == []


@pytest.mark.parametrize(
    ("changes", "all_mixed"),
    [
        ({}, True),
        ({"num_repeats": 3}, True),
        ({"num_repeats": 3, "classification_weight": 0.5}, False),
        ({"num_repeats": 3, "koleo_weight": 0.1}, False),
    ],
)
def test_all_views_are_mixed_where_no_instances_are_compared(changes, all_mixed):
    changes |= {"mixup_alpha": 1.0, "batch_norm_group_size": 6}
    changes |= {"sampling_group_size": 6}
    assert mixing_problems(config(**changes)) == []
    mix = make_mix_views(config(**changes))
    ids = jax.numpy.arange(12, dtype=jax.numpy.int32) // 3
    images = jax.numpy.ones((12, 2, 2, 3))
    assert mix is not None
    mixed = jax.jit(mix)(jax.random.key(0), images, ids, ids)
    # Of three views in a group of six the last is mixed.
    last = np.arange(12) % 3 == 2
    np.testing.assert_array_equal(mixed.labels.share < 1, all_mixed | last)
    expected = ids if all_mixed else np.where(last, -1, ids)
    np.testing.assert_array_equal(mixed.instance_ids, expected)
    # The partner is three places on, in groups of six.
    other = np.roll(np.asarray(ids).reshape(-1, 6), -3, axis=1).reshape(-1)
    np.testing.assert_array_equal(mixed.labels.other, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"classification_weight": 0.0, "num_repeats": 3},
            "mixup_alpha = 0.2, cutmix_alpha = 1.0 with classification_weight = 0.0",
        ),
        ({"classification_weight": 0.5, "num_repeats": 2}, "2 views of an instance"),
        ({"koleo_weight": 1.0, "num_repeats": 2}, "2 views of an instance"),
        (
            {
                "classification_weight": 0.5,
                "num_repeats": 3,
                "sampling_group_size": 2,
            },
            "2 views of an instance",
        ),
        ({"batch_norm_group_size": 1}, "no other to mix with"),
        (
            {"num_repeats": 3, "batch_norm_group_size": 5},
            "3 views of an instance side by side (num_repeats, times "
            "data.photos_per_instance where instances are known) in groups of 5 "
            "samples (batch_norm_group_size, or batch_size where that is smaller): the "
            "partner half a group further on would often be a view of the same "
            "instance; choose groups of 6 or more",
        ),
    ],
)
def test_mixtures_that_would_be_none_are_refused(changes, said):
    alphas = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    (problem,) = mixing_problems(config(**alphas, **changes))
    assert said in problem
    assert mixing_problems(config(**changes)) == []


@pytest.mark.parametrize(
    ("repeats", "photos", "group", "batch", "often"),
    [
        (3, 1, 4, 512, True),
        (3, 1, 6, 48, False),
        (3, 1, 64, 5, True),
        (3, 16, 64, 512, True),
        (3, 10, 64, 512, False),
    ],
)
def test_a_partner_is_of_the_same_instance_by_chance_alone(
    repeats, photos, group, batch, often
):
    changes = {"num_repeats": repeats, "mixup_alpha": 1.0, "batch_size": batch}
    changes |= {"batch_norm_group_size": group}
    instances = np.repeat(np.arange(900), photos)
    known = None
    if photos > 1:
        known = KnownInstances(instances, photos_per_instance=photos)
        data = base.get_config().data.to_dict()
        data |= {"instances": "1", "photos_per_instance": photos}
        changes |= {"data": data, "classification_weight": 0.5}
    stream = RepeatedStream(
        num_images=len(instances),
        num_repeats=repeats,
        epoch_len_factor=repeats,
        batch_size=batch,
        seed=0,
        known=known,
    )
    ids = np.concatenate(
        [
            instances[stream.sample_ids(step)].reshape(-1, min(group, batch))
            for step in range(min(20, stream.steps_per_epoch))
        ]
    )
    partners = np.roll(ids, -(ids.shape[1] // 2), axis=1)
    share = np.mean(ids == partners)
    assert share > 0.15 if often else share < 0.01
    # What is refused has such partners often, what is accepted hardly ever.
    assert len(mixing_problems(config(**changes))) == often
