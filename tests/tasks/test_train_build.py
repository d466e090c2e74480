import pytest

from configs import base
from multigrain_jax.data.repeated import RepeatedStream
from multigrain_jax.tasks import train_build as build


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
    scale, batch_size, microbatches, expected
):
    config = base.get_config().to_dict() | {"scale_learning_rate": scale}
    stream = RepeatedStream(
        num_images=100_000,
        num_repeats=1,
        epoch_len_factor=1.0,
        batch_size=batch_size * microbatches,
        seed=0,
    )
    learning_rate, _ = build._make_optimizer(config, stream)
    assert float(learning_rate(0)) == pytest.approx(expected, rel=1e-6)
