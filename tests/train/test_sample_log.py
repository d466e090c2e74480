"""Which images a run was trained on, and which a broken update was made from."""

import json

import numpy as np

from multigrain_jax.train.sample_log import SampleLog, write_non_finite_batch


class Named:
    """Images that are described by their numbers."""

    def describe(self, index):
        return f"{index}.jpg"


def rows(workdir):
    lines = (workdir / "sample_ids.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_that_goes_on_replaces_the_later_lines(tmp_path):
    log = SampleLog(tmp_path, first_step=0)
    for step in (1, 2, 3):
        log.write(step, np.array([step, 7]))
    log.close()
    log = SampleLog(tmp_path, first_step=1)
    log.write(2, np.array([9, 9]))
    log.close()
    assert rows(tmp_path) == [
        {"step": 1, "sample_ids": [1, 7]},
        {"step": 2, "sample_ids": [9, 9]},
    ]


def test_the_images_of_a_broken_update_are_named_once_each(tmp_path):
    ids = np.array([3, 3, 1])
    path = write_non_finite_batch(tmp_path, Named(), step=4, sample_ids=ids)
    assert json.loads(path.read_text()) == {
        "step": 4,
        "sample_ids": [3, 3, 1],
        "images": {"3": "3.jpg", "1": "1.jpg"},
    }
