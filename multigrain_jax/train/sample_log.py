"""Which images a run has been trained on, step by step."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.files import escape_name, write_durably
from multigrain_jax.growing_file import GrowingFile
from multigrain_jax.metric_writer import truncate_rows

SAMPLE_IDS_FILE = "sample_ids.jsonl"
NON_FINITE_FILE = "non_finite_batch.json"


class SampleLog:
    """Writes sample_ids.jsonl: one object a step, `step` and `sample_ids`."""

    def __init__(self, workdir: Path, *, first_step: int):
        """Continue the file after `first_step` updates; later lines are removed."""
        path = workdir / SAMPLE_IDS_FILE
        truncate_rows(path, first_step)
        self._file = GrowingFile(path)

    def write(self, step: int, sample_ids: np.ndarray) -> None:
        """Note the images (indices of the source) that update `step` is made from."""
        row = {"step": step, "sample_ids": sample_ids.tolist()}
        self._file.write((json.dumps(row) + "\n").encode())

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def write_non_finite_batch(
    workdir: Path, source: ImageSource, *, step: int, sample_ids: Sequence[int]
) -> Path:
    """Write which images the update with the broken loss was made from.

    Args:
        workdir: the run's folder.
        source: the images.
        step: the update.
        sample_ids: indices of the source. An unreadable image stands for its stand-in.

    Returns:
        The file: `step`, `sample_ids` and `images`, the name of each index.
    """
    path = workdir / NON_FINITE_FILE
    distinct = dict.fromkeys(int(index) for index in sample_ids)
    content = {
        "step": step,
        "sample_ids": [int(index) for index in sample_ids],
        "images": {index: escape_name(source.describe(index)) for index in distinct},
    }
    with write_durably(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
    return path
