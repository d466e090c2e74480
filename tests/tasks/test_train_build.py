import pytest
from helpers.configs import small_train_config

from multigrain_jax.errors import InputError
from multigrain_jax.tasks import train_build
from multigrain_jax.tasks.train_build import build_run


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


def test_what_has_no_effect_is_told_and_may_change(
    photo_folder, tmp_path, capsys, monkeypatch
):
    options = {"dry_run": True, "data": {"val_split": None}}
    options |= {"instance_loss": "infonce", "negative_sampling": "distance_weighted"}
    begun = []

    def start_state(beginning, *_, **__):
        begun.append(beginning)
        raise InputError("enough")

    monkeypatch.setattr(train_build, "start_state", start_state)
    with pytest.raises(InputError, match="enough"):
        build_run(small_train_config(photo_folder, **options).to_dict(), tmp_path)
    assert "negative_sampling = 'distance_weighted' is without" in (
        capsys.readouterr().out
    )
    assert "beta_init" in begun[0].resume.idle_keys
    assert "temperature" not in begun[0].resume.idle_keys
