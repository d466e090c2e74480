"""What both sides of the lockstep share; the original itself is not here."""

import numpy as np
import pytest

from measure import lockstep_original
from measure.lockstep_original import (
    BATCH,
    LOSSES,
    REPEATS,
    Rule,
    batches,
    difference,
    fixed_pairs,
    negatives,
    table,
)


def test_batches_are_views_of_instances_and_the_same_each_time():
    first, second = batches(3, 2)
    again, _ = batches(3, 2)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.dtype == np.float64
    groups = first.instances.reshape(-1, REPEATS)
    assert (groups == groups[:, :1]).all()
    assert set(first.instances) & set(second.instances) == set()
    assert first.labels.reshape(-1, REPEATS).std(axis=1).max() == 0
    views = first.images.reshape(-1, REPEATS, *first.images.shape[1:])
    assert 0 < np.abs(views[:, 0] - views[:, 1]).mean() < np.abs(views).mean()


@pytest.mark.parametrize("first_instance", [0, 8, 16, 400])
def test_both_sides_draw_the_same_negatives(first_instance):
    instances = first_instance + np.arange(BATCH) // REPEATS
    pairs = fixed_pairs(None, None, instances)
    rule = Rule(first_instance)
    drawn = [rule(BATCH, REPEATS - 1, p=np.ones(BATCH)) for _ in range(BATCH)]
    np.testing.assert_array_equal(pairs.negative, drawn)
    for anchor, (positive, negative) in enumerate(
        zip(np.asarray(pairs.positive), drawn, strict=True)
    ):
        same = np.flatnonzero(instances == instances[anchor])
        assert sorted([*positive, anchor]) == same.tolist()
        assert len(set(negative)) == REPEATS - 1
        assert set(negative) & set(same) == set()
    assert not np.array_equal(negatives(0, 1), negatives(0, 2))


def test_the_table_tells_the_worst_array():
    steps = np.linspace(2.0, 1.0, 6)
    theirs = {name: steps for name in LOSSES}
    theirs |= {"a": np.array([1.0, -4.0]), "num_batches_tracked": np.array(0)}
    ours = {**theirs, "loss": steps + 1e-3, "a": np.array([1.0, -4.4])}
    text = table(ours, theirs).splitlines()
    assert text[2] == "| 1 | 0.0e+00 | 0.0e+00 | 5.0e-04 | 0.0e+00 |"
    assert [line.split(" ")[1] for line in text[2:-2]] == ["1", "2", "5", "6"]
    assert "After 6 steps the 1 arrays are within 1.0e-01 (a)" in text[-1]
    assert "the loss went from 2.001 to 1.001" in text[-1]
    assert difference(np.zeros(2), np.zeros(2)) == 0


def test_what_is_missing_is_told(tmp_path, capsys):
    assert lockstep_original.main([str(tmp_path)]) == 2
    assert "found no scripts/train.py" in capsys.readouterr().err
