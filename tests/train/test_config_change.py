"""Which changes of a config a resumed run may have, and how they are told."""

import pytest

from configs import base
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.bounds import leaves
from multigrain_jax.train.config_change import (
    ARRAY_KEYS,
    BEFORE,
    ORDER_KEYS,
    PATH_KEYS,
    RECORD_KEYS,
    SHAPE_KEYS,
    START_KEYS,
    UPDATE_KEYS,
    as_it_ran,
    check_resumed_config,
    config_differences,
    config_record,
    split_by_effect,
)


def config(*, data=None, **changes):
    values = base.get_config().to_dict()
    return {**values, **changes, "data": {**values["data"], **(data or {})}}


def test_resuming_lists_changes_and_refuses_another_order():
    lines = check_resumed_config(config(), config(learning_rate=0.1), allowed=False)
    assert list(map(str, lines)) == ["learning_rate: 0.2 -> 0.1"]
    with pytest.raises(InputError, match="batch_size: 512 -> 256"):
        check_resumed_config(config(), config(batch_size=256), allowed=False)
    tfdata = config(data={"backend": "tfdata"})
    with pytest.raises(InputError, match=r"data\.backend: 'grain' -> 'tfdata'"):
        check_resumed_config(config(), tfdata, allowed=False)
    lines = check_resumed_config(config(), config(batch_size=256), allowed=True)
    assert "batch_size: 512 -> 256" in map(str, lines)


def test_every_key_is_of_one_kind():
    kinds = [ORDER_KEYS, SHAPE_KEYS, ARRAY_KEYS, START_KEYS, UPDATE_KEYS, RECORD_KEYS]
    listed = [key for kind in kinds for key in kind]
    assert sorted(listed) == sorted(key for key, _ in leaves(config()))
    assert set(PATH_KEYS) <= set(listed)


def changed(key):
    """The config with another value of one key, of whatever type."""
    values = config()
    *outer, name = key.split(".")
    part = values
    for inner in outer:
        part = part[inner]
    part[name] = "something else"
    return values


@pytest.mark.parametrize("key", [key for key, _ in leaves(config())])
def test_what_is_said_of_a_change_is_what_happens(key):
    saved, current = config(), changed(key)
    before = dict(leaves(config_record(saved)))[key]
    said = [f"{key}: {before!r} -> 'something else'"]
    if key in START_KEYS + ARRAY_KEYS:
        why = "would have no effect" if key in START_KEYS else "want other arrays"
        for allowed in (False, True):
            with pytest.raises(InputError, match=why) as error:
                check_resumed_config(saved, current, allowed=allowed)
            assert said[0] in str(error.value)
            assert "allow_config_change" not in str(error.value)
        return
    if key in ORDER_KEYS + SHAPE_KEYS:
        with pytest.raises(InputError, match="allow_config_change=True") as error:
            check_resumed_config(saved, current, allowed=False)
        assert said[0] in str(error.value)
    changes = check_resumed_config(
        saved, current, allowed=key not in UPDATE_KEYS + RECORD_KEYS
    )
    assert [str(change) for change in changes] == said
    # Of a run that is finished the config says what was trained.
    effective, idle = split_by_effect(changes)
    assert (effective if key in RECORD_KEYS else idle) == changes
    expected = current if key in RECORD_KEYS else saved
    assert config_record(as_it_ran(current, idle)) == config_record(expected)


def test_a_key_that_an_older_version_did_not_have_is_no_change():
    saved = config()
    del saved["start_anew"], saved["margin"]
    (change,) = check_resumed_config(saved, config(), allowed=False)
    assert str(change) == "margin: None -> 0.2"


def test_what_an_older_version_did_without_a_key_is_no_change():
    saved = config()
    for key in BEFORE:
        *outer, name = key.split(".")
        del (saved[outer[0]] if outer else saved)[name]
    assert check_resumed_config(saved, config(), allowed=False) == []
    (change,) = check_resumed_config(saved, config(label_smoothing=0.1), allowed=False)
    assert str(change) == "label_smoothing: 0.0 -> 0.1"
    three = config(data={"photos_per_instance": 3})
    with pytest.raises(InputError, match=r"data\.photos_per_instance: 2 -> 3"):
        check_resumed_config(saved, three, allowed=False)


def test_what_the_config_does_not_read_is_no_change():
    saved = config(beta_init=1.0, margin=0.3, instance_loss="infonce")
    current = config(instance_loss="infonce")
    with pytest.raises(InputError, match="would have no effect"):
        check_resumed_config(saved, current, allowed=False)
    idle = {"beta_init", "margin"}
    assert check_resumed_config(saved, current, allowed=False, idle_keys=idle) == []


def test_the_same_path_may_be_written_otherwise(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ant")
    saved = config(init_from="~/x", data={"list_file": "/lists/../list.txt"})
    same = config(init_from="/home/ant/x", data={"list_file": "/list.txt"})
    assert check_resumed_config(saved, same, allowed=False) == []
    other = config(init_from="/home/bee/x", data={"list_file": "/list.txt"})
    with pytest.raises(InputError, match="init_from"):
        check_resumed_config(saved, other, allowed=False)


def test_only_what_alters_the_order_is_in_the_refusal():
    with pytest.raises(InputError) as error:
        check_resumed_config(
            config(), config(learning_rate=0.1, seed=1, train_size=64), allowed=False
        )
    assert "seed: 0 -> 1" in str(error.value)
    assert "train_size: 224 -> 64" in str(error.value)
    assert "learning_rate" not in str(error.value)


def test_keys_that_came_or_went_are_differences_too():
    old, new = {"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}}
    assert config_differences(old, new) == [("a", 1, None), ("b.d", None, 3)]


def test_a_record_equals_what_json_gives_back():
    record = config_record({"a": (1, 2), "b": {"c": (0.5,)}, "d": None})
    assert record == {"a": [1, 2], "b": {"c": [0.5]}, "d": None}
    assert config_differences(record, {"a": (1, 2), "b": {"c": (0.5,)}}) == []
