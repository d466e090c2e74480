import json

import numpy as np
import pytest

from multigrain_jax.data.repeated import (
    KnownInstances,
    RepeatedStream,
    reference_epoch,
)


def make_stream(**changes):
    options = {
        "num_images": 10,
        "num_repeats": 3,
        "epoch_len_factor": 2.0,
        "batch_size": 4,
        "seed": 0,
    }
    return RepeatedStream(**(options | changes))


def all_ids(stream, steps):
    return np.concatenate([stream.sample_ids(step) for step in steps])


def test_the_pure_sampler_equals_the_recorded_batches(golden_dir):
    cases = json.loads((golden_dir / "functional" / "discrete.json").read_text())
    for case in cases["ra_sampler"]:
        if "epochs" not in case:
            continue  # ImageNet's sizes alone: below
        rng = np.random.RandomState(case["np_random_seed"])
        for recorded in case["epochs"]:
            batches = reference_epoch(
                rng,
                num_images=case["dataset_len"],
                batch_size=case["batch_size"],
                num_repeats=case["repetitions"],
                epoch_len_factor=case["len_factor"],
                shuffle=case["shuffle"],
            )
            if case["drop_last"]:
                batches = [b for b in batches if len(b) == case["batch_size"]]
            assert batches == recorded, case


def test_the_epoch_of_imagenet_has_the_recorded_length(golden_dir):
    cases = json.loads((golden_dir / "functional" / "discrete.json").read_text())
    case = next(case for case in cases["ra_sampler"] if "epochs" not in case)
    batches = reference_epoch(
        np.random.RandomState(0),
        num_images=case["dataset_len"],
        batch_size=case["batch_size"],
        num_repeats=case["repetitions"],
        epoch_len_factor=case["len_factor"],
        shuffle=False,
    )
    assert len(batches) == case["len"]
    assert sum(map(len, batches)) == case["samples_per_epoch"]
    assert len(batches[-1]) == 286
    stream = make_stream(num_images=case["dataset_len"], batch_size=512)
    assert stream.steps_per_epoch == case["len"]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 20, 64])
def test_every_epoch_is_the_plain_stream(batch_size):
    stream = make_stream(num_images=7, epoch_len_factor=2.5, batch_size=batch_size)
    assert stream.steps_per_epoch == -(-17 // batch_size)
    for epoch in range(3):
        first = epoch * stream.steps_per_epoch
        ids = all_ids(stream, range(first, first + stream.steps_per_epoch))
        for start in range(0, len(ids), 21):
            one_round = ids[start : start + 21]
            groups = [one_round[i : i + 3] for i in range(0, len(one_round), 3)]
            assert all(len(set(group.tolist())) == 1 for group in groups)
            if len(one_round) == 21:
                assert sorted(g[0] for g in groups) == list(range(7))


def test_epochs_rounds_and_seeds_have_their_own_permutations():
    stream = make_stream(num_images=50, epoch_len_factor=6.0, batch_size=150)
    assert stream.steps_per_epoch == 2
    orders = [tuple(stream.sample_ids(step)) for step in range(4)]
    orders.append(
        tuple(make_stream(num_images=50, batch_size=150, seed=1).sample_ids(0))
    )
    assert len(set(orders)) == 5


def test_sample_ids_are_functions_of_the_step_alone():
    steps = [5, 0, 17, 3]
    stream = make_stream()
    expected = {step: make_stream().sample_ids(step) for step in steps}
    for step in steps:
        np.testing.assert_array_equal(stream.sample_ids(step), expected[step])


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 6, 9])
def test_slots_spell_out_the_samples(repeats, batch_size):
    stream = make_stream(num_repeats=repeats, batch_size=batch_size)
    for step in range(2 * stream.steps_per_epoch):
        slots = stream.image_slots(step, 0, batch_size)
        assert len(slots) <= stream.max_slots(batch_size)
        assert np.repeat(
            [slot.index for slot in slots], [slot.repeats for slot in slots]
        ).tolist() == list(stream.sample_ids(step))
        position = step * batch_size
        for slot in slots:
            assert slot.first_position == position
            assert 1 <= slot.repeats <= repeats
            position += slot.repeats


def test_the_bound_on_slots_is_reached():
    stream = make_stream(batch_size=4)
    sizes = {len(stream.image_slots(step, 0, 4)) for step in range(5)}
    # Groups of three: four samples touch two groups, or three with one at each edge.
    assert max(sizes) <= stream.max_slots(4) == 2
    stream = make_stream(batch_size=5)
    sizes = {len(stream.image_slots(step, 0, 5)) for step in range(6)}
    assert max(sizes) == stream.max_slots(5) == 3


def test_host_slices_are_cut_like_the_batch():
    stream = make_stream(batch_size=8)
    for step in range(6):
        parts = []
        for start, stop in ((0, 3), (3, 4), (4, 8)):
            for slot in stream.image_slots(step, start, stop):
                for k in range(slot.repeats):
                    parts.append((slot.index, slot.first_position + k))
        whole = [
            (index, step * 8 + k) for k, index in enumerate(stream.sample_ids(step))
        ]
        assert parts == whole


def most_positives(stream):
    most = 0
    for step in range(stream.steps_per_epoch):
        _, counts = np.unique(stream.sample_ids(step), return_counts=True)
        most = max(most, int(counts.max()) - 1)
    return most


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        # An epoch within one permutation: the repetitions, and no more.
        ({"num_images": 100, "batch_size": 16}, 2),
        ({"num_images": 100, "batch_size": 2}, 1),
        ({"num_images": 100, "batch_size": 1}, 0),
        ({"num_images": 100, "num_repeats": 1, "epoch_len_factor": 1.0}, 0),
        # Permutations meet within a batch.
        ({"num_images": 4, "epoch_len_factor": 30.0, "batch_size": 8}, 5),
        # A batch longer than a permutation.
        ({"num_images": 4, "epoch_len_factor": 90.0, "batch_size": 30}, 11),
        ({"num_images": 1, "epoch_len_factor": 30.0, "batch_size": 6}, 5),
    ],
)
def test_no_image_has_more_positives_than_the_bound(changes, bound):
    stream = make_stream(**changes)
    assert stream.max_positives == bound
    seen = max(
        most_positives(make_stream(**(changes | {"seed": seed}))) for seed in range(20)
    )
    assert seen == bound if bound < 11 else seen <= bound


# Of one photo to seven, of numbers with gaps.
INSTANCES = np.array([5, 9, 9, 2, 2, 2, 7, 7, 7, 7, 7, 11, 11, 11, 11, 11, 11, 11])


def known(photos=2, instances=INSTANCES):
    return KnownInstances(instances, photos_per_instance=photos)


def rows_of(ids, instances=INSTANCES):
    """Lengths of the runs of one instance, by instance."""
    cuts = np.flatnonzero(np.diff(instances[ids])) + 1
    rows: dict[int, list[int]] = {}
    for part in np.split(ids, cuts):
        rows.setdefault(int(instances[part[0]]), []).append(len(part))
    return rows


@pytest.mark.parametrize("photos", [2, 3, 4, 20])
def test_photos_of_an_instance_stand_side_by_side(photos):
    permutations = [
        known(photos).permutation(np.random.default_rng(seed)) for seed in range(40)
    ]
    for ids in permutations:
        # Every photo once: instances change the order, and not how often one is seen.
        assert sorted(ids.tolist()) == list(range(len(INSTANCES)))
        for instance, lengths in rows_of(ids).items():
            size = int(np.sum(instance == INSTANCES))
            fewest = -(-size // photos)
            # Rows of one instance may happen to meet, and look like one.
            assert len(lengths) <= fewest
            if len(lengths) == fewest:
                assert max(lengths) <= photos and max(lengths) - min(lengths) <= 1
    assert len({tuple(ids) for ids in permutations}) == 40
    # Each photo meets each other one of its instance in some of them.
    pairs = {
        frozenset(ids[place : place + 2].tolist())
        for ids in permutations
        for place in range(len(ids) - 1)
    }
    sevens = np.flatnonzero(INSTANCES == 11).tolist()
    assert {frozenset((a, b)) for a in sevens for b in sevens if a < b} <= pairs


def test_instances_repeat_and_resume_as_photos_do():
    stream = make_stream(num_images=18, epoch_len_factor=4.0, known=known(3))
    ids = all_ids(stream, range(14))[: 18 * 3]
    photos = ids.reshape(18, 3)
    assert (photos == photos[:, :1]).all() and len(set(photos[:, 0])) == 18
    again = make_stream(num_images=18, epoch_len_factor=4.0, known=known(3))
    for step in (25, 3, 40):
        np.testing.assert_array_equal(again.sample_ids(step), stream.sample_ids(step))
        slots = again.image_slots(step, 1, 4)
        spelled = [slot.index for slot in slots for _ in range(slot.repeats)]
        assert spelled == stream.sample_ids(step)[1:4].tolist()
    epochs = [tuple(all_ids(stream, range(step, step + 9))) for step in (0, 18, 36)]
    assert len(set(epochs)) == 3


def test_what_is_not_known_changes_nothing():
    expected = [8, 8, 8, 0, 0, 0, 3, 3]
    assert make_stream(batch_size=8).sample_ids(0).tolist() == expected
    assert make_stream(batch_size=8, known=None).sample_ids(0).tolist() == expected


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"num_repeats": 1, "epoch_len_factor": 1.0, "batch_size": 18}, 6),
        ({"num_repeats": 2, "epoch_len_factor": 1.0, "batch_size": 18}, 13),
        ({"num_repeats": 2, "batch_size": 8}, 7),
    ],
)
def test_no_instance_has_more_positives_than_the_bound(changes, bound):
    seen = 0
    for seed in range(300):
        stream = make_stream(num_images=18, known=known(3), seed=seed, **changes)
        assert stream.max_positives == bound
        for step in range(stream.steps_per_epoch):
            counts = np.bincount(INSTANCES[stream.sample_ids(step)])
            seen = max(seen, int(counts.max()) - 1)
    assert seen <= bound
    assert seen == bound or changes["num_repeats"] > 1


@pytest.mark.parametrize("batch_size", [4, 5])
def test_the_augmentations_of_an_image_are_the_same_for_all_of_them(batch_size):
    stream = make_stream(batch_size=batch_size)
    steps = range(3 * stream.steps_per_epoch)
    for step in steps:
        ids = stream.sample_ids(step)
        for slot in stream.image_slots(step, 1, batch_size):
            group = stream.augmentations_of(slot.first_position)
            own = range(slot.first_position, slot.first_position + slot.repeats)
            assert len(group) == 3
            for position in own:
                assert position in group
                assert stream.augmentations_of(position) == group
            # In this batch, all of them are this image.
            here = range(step * batch_size, (step + 1) * batch_size)
            assert all(ids[p - here.start] == slot.index for p in group if p in here)
