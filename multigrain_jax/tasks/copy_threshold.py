"""From which similarity on two photos are the same, as far as that is known."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.files import read_json
from multigrain_jax.inference import OpenedModel
from multigrain_jax.workdir import RESULTS_FILE

THRESHOLD_KEY = "copy_threshold_at_p90"
GUESSED_THRESHOLD = 0.9


class Threshold(NamedTuple):
    """Where "the same photo" begins.

    Attributes:
        start: a similarity.
        origin: where it comes from, in words.
    """

    start: float
    origin: str


GUESS = Threshold(GUESSED_THRESHOLD, "a guess: nothing was measured")


def threshold_of(opened: OpenedModel) -> Threshold:
    """Where "the same photo" begins, by what is known of the checkpoint.

    That is `*/copy_threshold_at_p90` in the results.json beside it, else what is known
    of published weights, else a guess.
    """
    measured = threshold_beside(opened.checkpoint.path)
    if measured is not None:
        return measured
    published = opened.checkpoint.meta.get("published")
    if isinstance(published, dict):
        found = _copy_threshold(published.get("results"))
        if found is not None:
            return Threshold(found, f"published for {published.get('name')}")
    return GUESS


def threshold_beside(checkpoint: Path) -> Threshold | None:
    """What the results.json of a step's folder, or of its workdir, has measured."""
    for folder in (checkpoint, checkpoint.parent, checkpoint.parent.parent):
        with contextlib.suppress(OSError, ValueError):
            found = _copy_threshold(read_json(folder / RESULTS_FILE))
            if found is not None:
                return Threshold(found, f"measured by {folder}")
    return None


def _copy_threshold(results: Any) -> float | None:
    if not isinstance(results, dict):
        return None
    for key in sorted(results):
        value = results[key]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key.rpartition("/")[2] == THRESHOLD_KEY and is_number and -1 <= value <= 1:
            return float(value)
    return None
