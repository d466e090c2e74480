"""From which similarity on two photos are the same, as far as that is known."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multigrain_jax.checkpoint import load_meta
from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.errors import InputError
from multigrain_jax.files import read_json
from multigrain_jax.tasks.embed_record import CHECKPOINT_KEYS, embed_config
from multigrain_jax.workdir import RESULTS_FILE

THRESHOLD_KEY = "copy_threshold_at_p90"
GUESSED_THRESHOLD = 0.9
HOW_TO_CHOOSE = (
    "to choose one: look at the page of a lower one, such as --config.threshold=0.8, "
    "and take the similarity from which on the pairs are right"
)
GUESS = "a guess, the same for every network: nothing was measured of"


class Threshold(NamedTuple):
    """Where "the same photo" begins.

    Attributes:
        start: a similarity.
        origin: where it comes from, in words.
    """

    start: float
    origin: str


def known_threshold(checkpoint: Path, meta: Mapping[str, Any]) -> Threshold:
    """Where "the same photo" begins, by what is known of a checkpoint.

    That is `*/copy_threshold_at_p90` in the results.json beside it, else what is known
    of published weights, else a guess that says of which weights nothing was measured.

    Args:
        checkpoint: a workdir or the folder of a step.
        meta: of the checkpoint.
    """
    measured = threshold_beside(checkpoint)
    if measured is not None:
        return measured
    whose = "these weights"
    published = meta.get("published")
    if isinstance(published, dict):
        found = _copy_threshold(published.get("results"))
        if found is not None:
            return Threshold(found, f"published for {published.get('name')}")
        # What was trained from them is not them any more.
        whose = whose if meta.get("config") else str(published.get("name", whose))
    return Threshold(GUESSED_THRESHOLD, f"{GUESS} {whose}")


def threshold_of_collection(collection: Path) -> float:
    """Where "the same photo" begins in a collection, and lines that say why there.

    Args:
        collection: a workdir of `embed`, whose config.json names the checkpoint.

    Raises:
        InputError: that file is damaged.
    """
    made_by = embed_config(collection, CHECKPOINT_KEYS)
    start, origin = Threshold(GUESSED_THRESHOLD, f"{GUESS} these weights")
    if made_by is not None:
        checkpoint, meta = as_path(made_by["init_from"]), {}
        if threshold_beside(checkpoint) is None:
            with contextlib.suppress(InputError, OSError):  # it may have gone since
                meta = load_meta(checkpoint, step=made_by["init_step"])
        start, origin = known_threshold(checkpoint, meta)
    print(f"threshold = {start:g}: {origin}")
    if origin.startswith(GUESS):
        print(HOW_TO_CHOOSE)
    return start


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
