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
    gather_shares,
    host_slices,
    own_folder,
    quiet_unless_first,
    start_hosts,
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
