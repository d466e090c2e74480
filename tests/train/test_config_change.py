"""Which changes of a config a resumed run may have, and how they are told."""

import pytest

from configs import base
from multigrain_jax.errors import InputError
from multigrain_jax.train.config_change import (
    ORDER_KEYS,
    SHAPE_KEYS,
    check_resumed_config,
    config_differences,
    config_record,
)


def config(*, data=None, **changes):
    values = base.get_config().to_dict()
    return {**values, **changes, "data": {**values["data"], **(data or {})}}


def test_resuming_lists_changes_and_refuses_another_order():
    lines = check_resumed_config(config(), config(learning_rate=0.1), allowed=False)
    assert lines == ["learning_rate: 0.2 -> 0.1"]
    with pytest.raises(InputError, match="batch_size: 512 -> 256"):
        check_resumed_config(config(), config(batch_size=256), allowed=False)
    tfdata = config(data={"backend": "tfdata"})
    with pytest.raises(InputError, match=r"data\.backend: 'grain' -> 'tfdata'"):
        check_resumed_config(config(), tfdata, allowed=False)
    lines = check_resumed_config(config(), config(batch_size=256), allowed=True)
    assert "batch_size: 512 -> 256" in lines


def test_every_key_of_order_and_shape_is_one_of_a_config():
    values = config()
    for key in ORDER_KEYS + SHAPE_KEYS:
        inner = values
        for name in key.split("."):
            inner = inner[name]


def test_only_what_alters_the_order_is_in_the_refusal():
    with pytest.raises(InputError) as error:
        check_resumed_config(
            config(), config(learning_rate=0.1, seed=1, backbone="tiny"), allowed=False
        )
    assert "seed: 0 -> 1" in str(error.value)
    assert "backbone: 'resnet50' -> 'tiny'" in str(error.value)
    assert "learning_rate" not in str(error.value)


def test_keys_that_came_or_went_are_differences_too():
    old, new = {"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}}
    assert config_differences(old, new) == [("a", 1, None), ("b.d", None, 3)]


def test_a_record_equals_what_json_gives_back():
    record = config_record({"a": (1, 2), "b": {"c": (0.5,)}, "d": None})
    assert record == {"a": [1, 2], "b": {"c": [0.5]}, "d": None}
    assert config_differences(record, {"a": (1, 2), "b": {"c": (0.5,)}}) == []
