import pytest

from configs import base, copies, joint_1B, joint_3B, joint_3BAA, modern, quickstart
from multigrain_jax.errors import InputError
from multigrain_jax.tasks import train_check as check
from multigrain_jax.tasks.train_check import check_train_config


def config(**changes):
    values = base.get_config().to_dict()
    values["data"]["root"] = "/images"
    for key, value in changes.items():
        if "__" in key:
            outer, inner = key.split("__")
            values[outer][inner] = value
        else:
            values[key] = value
    return values


def test_the_recipes_are_accepted():
    check_train_config(config(), num_devices=8)
    check_train_config(quickstart.get_config().to_dict(), num_devices=1)
    for recipe in (joint_1B, joint_3B, joint_3BAA, modern, copies):
        joint = recipe.get_config("0.5")
        joint.data.root = "/images"
        check_train_config(joint.to_dict(), num_devices=8)


@pytest.mark.parametrize("weight", ["0", "0.3", "0.5"])
@pytest.mark.parametrize("recipe", [modern, copies])
def test_the_later_recipes_are_accepted_for_other_weights(recipe, weight):
    config = recipe.get_config(weight)
    config.data.root = "/images"
    check_train_config(config.to_dict(), num_devices=8)
    joint = joint_3B.get_config(weight)
    # "Cost as joint_3B": as many crops of the same size, of as many photos.
    for key in ("num_epochs", "epoch_len_factor", "batch_size", "train_size"):
        assert config[key] == joint[key]
    assert config.num_repeats == joint.num_repeats


def test_the_paper_recipes_are_named_by_their_exponent():
    for recipe, exponent in ((joint_1B, 1.0), (joint_3B, 3.0), (joint_3BAA, 3.0)):
        config = recipe.get_config("0.5")
        assert (config.pooling_exponent, config.num_repeats) == (exponent, 3)
        assert config.classification_weight == 0.5


# Other photos are positives: each of them need not be seen twice.
INSTANCES = {
    "data__source": "folder",
    "data__instances": "1",
    "classification_weight": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classification_weight": 0.5}, "num_repeats = 1 with classification_weight"),
        ({"batch_norm_group_size": 60}, "does not divide batch_size = 512"),
        ({"sampling_group_size": 60}, "sampling_group_size = 60"),
        ({"backbone": "resnet51"}, "expected one of resnet18"),
        ({"batch_size": 500}, "does not divide over 8 devices"),
        ({"negative_sampling": "hard"}, "reference"),
        ({"data__root": None}, r"--config\.data\.root"),
        ({"data__source": "web"}, "data.source"),
        ({"max_train_hours": 0.0}, "max_train_hours: found 0.0, expected more than 0"),
        ({"data__val_fraction": 1.0}, "found 1.0, expected from 0 to below 1"),
        ({"crop_resize": "nearest"}, "crop_resize: found 'nearest'"),
        ({"momentum": 1.0}, "momentum"),
        ({"learning_rate_drop_factors": (0.1,)}, "one factor for each epoch"),
        ({"train_size": 16}, "at least 32"),
        ({"instance_loss": "infonce"}, "leaves it no weight"),
        ({"optimizer": "adam"}, "optimizer: found 'adam', expected one of sgd, lars"),
        ({"instance_loss": "triplet"}, "expected one of margin, infonce"),
        ({"koleo_weight": 1.0, "sampling_group_size": 1}, "koleo_weight = 1.0 with gr"),
        ({"temperature": 0.0}, "temperature: found 0.0, expected more than 0"),
        ({"label_smoothing": 1.0}, "label_smoothing: found 1.0, expected from 0 to"),
        ({"init_from": "a", "pretrained_backbone": "b"}, "keep one"),
        ({"temperature": 0.1}, "temperature: found 0.1 with instance_loss"),
        ({"data__instances": "1"}, "known by folders or a list file"),
        ({**INSTANCES, "data__instances": "0"}, "'0', expected the number of a level"),
        ({**INSTANCES, "data__instances": "list"}, r"--config\.data\.list_file=FILE"),
        ({**INSTANCES, "classification_weight": 1.0}, "no loss tells instances apart"),
        ({**INSTANCES, "data__photos_per_instance": 1}, "found 1, expected at least 2"),
        (
            {**INSTANCES, "instance_loss": "infonce", "sampling_group_size": 2},
            r"and data\.photos_per_instance = 2: a group may hold one",
        ),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_train_config(config(**changes), num_devices=8)


@pytest.mark.parametrize("repeats", [2, 3])
def test_the_margin_loss_wants_negatives_in_each_group(repeats):
    wanted = {"classification_weight": 0.5, "num_repeats": repeats}
    for group in range(1, repeats + 1):
        with pytest.raises(InputError) as error:
            check_train_config(
                config(**wanted, batch_size=24, sampling_group_size=group),
                num_devices=1,
            )
        assert f"classification_weight = 0.5 with groups of {group} samples" in str(
            error.value
        )
    check_train_config(
        config(**wanted, batch_size=24, sampling_group_size=4), num_devices=1
    )
    # Cross-entropy alone compares nothing.
    check_train_config(config(batch_size=24, sampling_group_size=1), num_devices=1)


def test_infonce_wants_positives_and_negatives_in_each_group():
    wanted = {"instance_loss": "infonce", "classification_weight": 0.5}
    check_train_config(config(**wanted, num_repeats=3), num_devices=8)
    with pytest.raises(InputError, match=r"num_repeats = 1 .* and no InfoNCE;"):
        check_train_config(config(**wanted), num_devices=8)
    for group in (2, 4):
        with pytest.raises(InputError, match=rf"groups of {group} .*larger groups"):
            check_train_config(
                config(**wanted, num_repeats=4, sampling_group_size=group),
                num_devices=8,
            )
    check_train_config(
        config(**wanted, num_repeats=4, sampling_group_size=8), num_devices=8
    )


def test_simd_resize_is_refused_with_tfdata(monkeypatch):
    monkeypatch.setattr(check, "crop_resizer", lambda name: None)
    check_train_config(config(crop_resize="simd"), num_devices=8)
    check_train_config(
        config(data__source="tfds", data__backend="tfdata"), num_devices=8
    )
    with pytest.raises(InputError, match='set crop_resize to "auto"'):
        check_train_config(
            config(crop_resize="simd", data__backend="tfdata"), num_devices=8
        )


def test_all_problems_come_in_one_message():
    with pytest.raises(InputError) as error:
        check_train_config(
            config(backbone="x", augmentation="y", batch_size=0), num_devices=8
        )
    assert all(key in str(error.value) for key in ("backbone", "augmentation", "batch"))


def test_a_batch_smaller_than_the_groups_is_one_group():
    check_train_config(config(batch_size=40), num_devices=8)


def test_a_list_is_not_trained_and_validated_on_at_once(tmp_path):
    listed = {"data__source": "folder", "data__list_file": "list.txt"}
    with pytest.raises(InputError, match="val_fraction to hold a share out"):
        check_train_config(config(**listed), num_devices=8)
    check_train_config(config(**listed, data__val_fraction=0.1), num_devices=8)
    check_train_config(config(**listed, data__val_split=None), num_devices=8)
    listed["data__list_file"] = str(tmp_path)  # a folder has a list for each split
    check_train_config(config(**listed), num_devices=8)


def test_tfrecord_files_are_read_as_they_are():
    data = {"data__source": "folder", "data__backend": "tfdata"}
    with pytest.raises(InputError, match=r"(?s)data.source = 'folder'.*\"AA\""):
        check_train_config(config(**data, augmentation="AA"), num_devices=1)
    with pytest.raises(InputError, match=r'set data\.decode to "exact"'):
        check_train_config(config(**data, data__decode="fast"), num_devices=1)
    check_train_config(config(data__decode="fast"), num_devices=1)
    with pytest.raises(InputError, match=r"data\.decode: found 'half'"):
        check_train_config(config(data__decode="half"), num_devices=1)
    with pytest.raises(InputError, match="'tf', expected one of grain, tfdata"):
        check_train_config(config(data__backend="tf"), num_devices=1)


def test_other_photos_of_an_instance_are_positives_without_repetition():
    check_train_config(config(**INSTANCES), num_devices=8)
    check_train_config(config(**INSTANCES, instance_loss="infonce"), num_devices=8)
    mixed = {**INSTANCES, "mixup_alpha": 0.2}
    with pytest.raises(InputError, match="2 views of an instance"):
        check_train_config(config(**mixed), num_devices=8)
    check_train_config(config(**mixed, data__photos_per_instance=3), num_devices=8)
