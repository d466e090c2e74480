import jax
import numpy as np
import pytest
from helpers.configs import small_train_config

from multigrain_jax.tasks.train_build import build_run, make_prepare_images


@pytest.mark.parametrize(
    ("scale", "batch_size", "microbatches", "expected"),
    [
        (False, 2048, 1, 0.2),
        (True, 512, 1, 0.2),
        (True, 256, 1, 0.2),
        (True, 2048, 1, 0.8),
        (True, 512, 2, 0.4),
    ],
)
def test_the_linear_rule_counts_the_samples_of_a_step(
    photo_folder, tmp_path, scale, batch_size, microbatches, expected
):
    config = small_train_config(
        photo_folder,
        learning_rate=0.2,
        scale_learning_rate=scale,
        batch_size=batch_size,
        gradient_accumulation_steps=microbatches,
        dry_run=True,
        data={"val_split": None},
    )
    built = build_run(config.to_dict(), tmp_path)
    assert float(built.learning_rate(0)) == pytest.approx(expected, rel=1e-6)


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
