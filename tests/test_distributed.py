"""What hosts agree on, and what each of them does of a step."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from multigrain_jax.distributed import (
    QUESTIONS_BETWEEN_AGREEMENTS,
    agree,
    agree_on_matrix,
    agree_to_stop,
    all_done,
    folders_of_others,
    gather_rows,
    gather_shares,
    host_rows,
    host_slices,
    own_folder,
    quiet_unless_first,
    start_hosts,
    sum_over_hosts,
)
from multigrain_jax.errors import InputError


@pytest.fixture
def second_of_two(monkeypatch):
    """This process passes for the second of two hosts."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)


def test_shares_of_all_hosts_make_up_every_microbatch(monkeypatch):
    assert host_slices(8, microbatches=2) == [slice(0, 16)]
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    seen = []
    for index in range(4):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        seen.append(host_slices(8, microbatches=2))
    assert seen[1] == [slice(2, 4), slice(10, 12)]
    rows = [row for shares in seen for cut in shares for row in range(16)[cut]]
    assert sorted(rows) == list(range(16))


@pytest.mark.parametrize(
    "settings",
    [
        ("host:1", None, None),
        ("host:1", 2, None),
        ("host", 2, 0),
        (None, 2, 0),
        ("auto", 2, 0),
    ],
)
def test_half_given_settings_are_refused(settings):
    keys = ("coordinator", "num_processes", "process_index")
    with pytest.raises(InputError, match="give all three"):
        start_hosts(**dict(zip(keys, settings, strict=True)))


def test_a_host_alone_agrees_with_itself():
    start_hosts(coordinator=None, num_processes=None, process_index=None)
    matrix = np.arange(6).reshape(2, 3)
    assert agree(7) == 7
    assert agree_on_matrix(matrix) is matrix
    np.testing.assert_array_equal(gather_shares(np.arange(3)), [[0, 1, 2]])
    assert own_folder(Path("run")) == Path("run")

    def asked():
        return True

    assert agree_to_stop(asked) is asked


def test_the_first_hosts_value_counts(second_of_two, monkeypatch):
    given = []

    def broadcast(value):
        given.append(value)
        first = {(): np.int32(3), (3, 3): np.full((3, 3), 5, np.int32)}
        return first[np.shape(value)]

    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    assert agree(8) == 3
    # Hosts must agree on the shape, too: all but the first give zeros of it.
    found = agree_on_matrix(np.ones((9, 2), np.int64))
    np.testing.assert_array_equal(found, np.full((3, 3), 5))
    assert [np.shape(value) for value in given] == [(), (), (), (3, 3)]
    assert given[-1].dtype == np.int32 and not given[-1].any()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_all_hosts_rows_are_contiguous_and_whole(monkeypatch, count):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    seen = []
    for index in range(4):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        seen.append(list(range(count)[host_rows(count)]))
    assert [row for rows in seen for row in rows] == list(range(count))
    assert max(map(len, seen)) == -(-count // 4)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, bool])
def test_what_hosts_gather_has_every_bit(second_of_two, monkeypatch, dtype):
    """JAX itself would make 32 bits of 64."""
    large = 2**40 + 1 if dtype in (np.float64, np.int64) else 5
    first = np.array([[1 / 3, large]], np.float64).astype(dtype)
    sent = []

    def gather(words):
        sent.append(words)
        assert words.dtype in (np.uint32, np.uint8)
        return np.stack([first.reshape(-1).view(words.dtype), words])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    found = gather_shares(2 * first if dtype is not bool else first)
    assert found.dtype == dtype and found.shape == (2, 1, 2)
    np.testing.assert_array_equal(found[0], first)
    assert sum(words.nbytes for words in sent) == first.nbytes
    assert gather_shares(np.zeros((3, 0))).shape == (2, 3, 0)


def test_a_host_with_fewer_rows_sends_padding_that_is_left_out(
    second_of_two, monkeypatch
):
    first = np.arange(6, dtype=np.int32).reshape(3, 2)

    def gather(words):
        return np.stack([first.reshape(-1).view(words.dtype), words])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    found = gather_rows(first[:2] + 6, count=5)
    np.testing.assert_array_equal(found, np.arange(10).reshape(5, 2))


def test_a_host_alone_has_everything():
    rows = np.arange(6).reshape(3, 2)
    assert gather_rows(rows, count=3) is rows
    assert sum_over_hosts(rows) is rows
    assert host_rows(3) == slice(0, 3)
    with all_done():
        pass


def test_a_host_waits_for_the_others_unless_it_fails(second_of_two, monkeypatch):
    waited = []
    monkeypatch.setattr(multihost_utils, "sync_global_devices", waited.append)
    with pytest.raises(InputError), all_done():
        raise InputError("failed")
    assert waited == []
    with all_done():
        pass
    assert len(waited) == 1


def test_the_folders_of_the_others_are_found(second_of_two, tmp_path, monkeypatch):
    for index in range(1, 4):
        (tmp_path / "hosts" / str(index)).mkdir(parents=True)
    found = {path.name for path in folders_of_others(own_folder(tmp_path))}
    assert found == {tmp_path.name, "2", "3"}
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    found = {path.name for path in folders_of_others(own_folder(tmp_path))}
    assert found == {"1", "2", "3"}


def test_the_others_records_are_kept_apart_and_not_printed(second_of_two, capsys):
    assert own_folder(Path("run")) == Path("run/hosts/1")
    with quiet_unless_first():
        print("said by all")
    print("said by this one")
    assert capsys.readouterr().out == "said by this one\n"


def test_the_first_host_prints(capsys):
    with quiet_unless_first():
        print("said")
    assert capsys.readouterr().out == "said\n"


def test_hosts_stop_together_at_every_tenth_question(second_of_two, monkeypatch):
    gathered = []

    def gather(wish):
        gathered.append(bool(wish[0]))
        return np.array([False, gathered[-1]])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    wishes = iter([False, True])
    stop = agree_to_stop(lambda: next(wishes))
    answers = [stop() for _ in range(2 * QUESTIONS_BETWEEN_AGREEMENTS + 5)]
    first = 2 * QUESTIONS_BETWEEN_AGREEMENTS - 1
    assert answers == [False] * first + [True] * (len(answers) - first)
    assert gathered == [False, True]  # once it is settled, nobody is asked
