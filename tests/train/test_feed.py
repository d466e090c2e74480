"""Training batches on the devices, from shares that a fake reader makes."""

import jax
import numpy as np
import pytest

from multigrain_jax.mesh import make_mesh
from multigrain_jax.train import feed
from multigrain_jax.train.feed import train_batches

BATCH = 4


class Shares:
    """A reader whose samples are numbered over the run; it notes what it is asked."""

    def __init__(self, samples_of_a_step):
        self.samples = samples_of_a_step
        self.asked, self.closed = [], []

    def make(self, first_step, num_steps, share):
        self.asked.append((first_step, num_steps, share))
        try:
            for step in range(first_step, first_step + num_steps):
                ids = np.arange(self.samples)[share] + step * self.samples
                yield {
                    "image": np.full((len(ids), 2, 2, 3), step, np.uint8),
                    "label": ids % 3,
                    "instance_id": ids,
                    "image_index": ids,
                    "bad_index": np.array([step, -1]),
                    "noted_index": np.array([-1, step]),
                }
        finally:
            self.closed.append(share)


class Records:
    """Notes what it is told, as `SkipLog` and as `SampleLog`."""

    def __init__(self):
        self.skipped, self.samples = [], []

    def record(self, indices):
        self.skipped.append(indices.tolist())

    def write(self, step, sample_ids):
        self.samples.append((step, sample_ids.tolist()))

    def close(self):
        pass


class Notes:
    """Listens, as `NoteLog`."""

    def record(self, indices):
        assert indices.tolist()[0] == -1


def open_feed(shares, records, *, microbatches=1, first_step=0, last_step=2):
    return train_batches(
        shares.make,
        batch_size=BATCH,
        microbatches=microbatches,
        first_step=first_step,
        last_step=last_step,
        skips=records,
        notes=Notes(),
        sample_log=records,
        mesh=make_mesh(2),
    )


def test_batches_come_in_order_on_all_devices():
    shares, records = Shares(BATCH), Records()
    first, second = open_feed(shares, records, first_step=3, last_step=5)
    assert shares.asked == [(3, 2, slice(0, BATCH))]
    assert first.keys() == {"image", "label", "instance_id"}
    np.testing.assert_array_equal(first["instance_id"], [12, 13, 14, 15])
    np.testing.assert_array_equal(second["instance_id"], [16, 17, 18, 19])
    assert {shard.data.shape for shard in first["image"].addressable_shards} == {
        (2, 2, 2, 3)
    }
    # Step n is what is done after n updates: the one from 3 on is the fourth.
    assert records.samples == [(4, [12, 13, 14, 15]), (5, [16, 17, 18, 19])]
    assert records.skipped == [[3, -1], [4, -1]]


def test_microbatches_have_an_axis_of_their_own():
    shares, records = Shares(2 * BATCH), Records()
    (batch,) = open_feed(shares, records, microbatches=2, last_step=1)
    np.testing.assert_array_equal(batch["label"].shape, (2, BATCH))
    np.testing.assert_array_equal(batch["instance_id"], np.arange(8).reshape(2, 4))
    assert batch["image"].shape == (2, BATCH, 2, 2, 3)
    # The devices share each microbatch.
    halves = {shard.data.shape for shard in batch["label"].addressable_shards}
    assert halves == {(2, BATCH // 2)}
    assert records.samples == [(1, list(range(8)))]


def test_the_parts_of_a_host_are_put_together_and_all_hosts_are_recorded(monkeypatch):
    """The first of two hosts, which has half of each of two microbatches."""
    shares, records = Shares(2 * BATCH), Records()
    cuts = [slice(0, 2), slice(4, 6)]
    monkeypatch.setattr(feed, "host_slices", lambda size, microbatches: cuts)
    # What the other host has is two on.
    monkeypatch.setattr(feed, "gather_shares", lambda own: np.stack([own, own + 2]))
    (batch,) = open_feed(shares, records, microbatches=2, last_step=1)
    assert [share for *_, share in shares.asked] == cuts
    np.testing.assert_array_equal(batch["instance_id"], [[0, 1], [4, 5]])
    assert records.samples == [(1, list(range(8)))]


def test_nobody_need_know_of_the_samples():
    shares = Shares(BATCH)
    batches = train_batches(
        shares.make,
        batch_size=BATCH,
        microbatches=1,
        first_step=0,
        last_step=1,
        skips=Records(),
        notes=Notes(),
        sample_log=None,
        mesh=make_mesh(1),
    )
    assert len(list(batches)) == 1


@pytest.mark.parametrize("error", [None, ValueError])
def test_the_readers_are_closed_whatever_ends_the_run(error):
    shares = Shares(BATCH)
    batches = open_feed(shares, Records(), last_step=10)
    next(batches)
    assert shares.closed == []
    if error is None:
        batches.close()
    else:
        with pytest.raises(error):
            batches.throw(error)
    assert shares.closed == [slice(0, BATCH)]


def test_the_arrays_that_come_are_of_jax():
    (batch,) = open_feed(Shares(BATCH), Records(), last_step=1)
    assert all(isinstance(array, jax.Array) for array in batch.values())
    assert batch["image"].dtype == np.uint8
