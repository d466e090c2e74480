"""How photos are given to a network where "auto" stands: size, mode and p."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multigrain_jax.checkpoint.made_for import WHOLE_PHOTO, Choice, for_search
from multigrain_jax.descriptors.describe import model_digest
from multigrain_jax.descriptors.folder import DESCRIPTOR_FOLDER, read_head
from multigrain_jax.descriptors.opening import folders_in
from multigrain_jax.errors import InputError
from multigrain_jax.opened_model import OpenedModel, open_checkpoint
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.bounds import as_tuple

AUTO = "auto"
KEYS = ("test_size", "test_mode", "pooling_exponent")
# Up to here larger photos are usual: 500 pixels for what was trained at 224.
UNUSUAL_RATIO = 3


def settle(settings: dict[str, Any], opened: OpenedModel, workdir: Path) -> OpenedModel:
    """Put what "auto" stands for into a configuration, and say it in a line.

    Args:
        settings: the configuration as nested dictionaries, which is changed.
        opened: the model that it names, with the p that it gives, or the checkpoint's.
        workdir: of the descriptors. Where it has some of these weights, "auto" is what
            they were made with.

    Returns:
        The model, with the p that is taken.
    """
    if AUTO not in (settings[key] for key in KEYS):
        return opened
    choice = _of_folder(workdir, opened) or for_search(opened.checkpoint.meta)
    return take(choice, settings, opened)


def take(choice: Choice, settings: dict[str, Any], opened: OpenedModel) -> OpenedModel:
    """Put a choice where "auto" stands in a configuration, and say it in a line.

    Args:
        choice: what is taken.
        settings: the configuration as nested dictionaries, which is changed.
        opened: the model that it names, with the p that it gives, or the checkpoint's.

    Returns:
        The model, with the p that is taken.
    """
    asked = [key for key in KEYS if settings[key] == AUTO]
    if not asked:
        return opened
    others = as_tuple(settings["test_size"]) != choice.test_size
    if "test_size" not in asked and others and choice.pooling_exponent is not None:
        # A p is the one of a size: larger photos have a larger one.
        origin = f"{choice.origin}, but for p, which is the checkpoint's at other sizes"
        choice = choice._replace(pooling_exponent=None, origin=origin)
    for key in asked:
        value = getattr(choice, key)
        is_one = isinstance(value, tuple) and len(value) == 1
        settings[key] = value[0] if is_one else value
    wanted = settings["pooling_exponent"]
    if "pooling_exponent" in asked and wanted is not None:
        opened = open_checkpoint(
            opened.checkpoint,
            pooling_exponent=wanted,
            dtype=compute_dtype(settings["compute_dtype"]),
        )
    values = {**settings, "pooling_exponent": f"{opened.pooling_exponent:g}"}
    chosen = ", ".join(f"{key} = {values[key]}" for key in asked)
    print(f"{chosen}: {choice.origin}")
    return opened


def size_hint(meta: Mapping[str, Any], test_size: int) -> str:
    """A line where photos are to be much larger than the checkpoint knows them.

    Args:
        meta: of the checkpoint, which may hold the config of the run that made it.
        test_size: S, in pixels.
    """
    known = (meta.get("config") or {}).get("test_size")
    if not isinstance(known, int) or test_size <= UNUSUAL_RATIO * known:
        return ""
    return (
        f"test_size = {test_size}, and the checkpoint was made for {known}: "
        f"--config.test_size={known} is likely to find more, and is faster\n"
    )


def with_a_mode(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration for checks that know no "auto" of `test_mode`."""
    asked = settings["test_mode"] == AUTO
    return {**settings, **({"test_mode": WHOLE_PHOTO} if asked else {})}


def exponent_asked(value: Any) -> float | None:
    """The p that a configuration gives; None where it gives none, or "auto"."""
    return None if value in (None, AUTO) else float(as_tuple(value)[0])


def _of_folder(workdir: Path, opened: OpenedModel) -> Choice | None:
    """As the descriptors in a workdir were made; None: there are none of these weights.

    Raises:
        InputError: the folder is damaged.
    """
    own, digest, found = workdir / DESCRIPTOR_FOLDER, None, []
    for folder in folders_in(workdir):
        try:
            made = read_head(folder).settings
        except InputError:
            if folder == own:
                raise
            continue  # of other settings, perhaps
        digest = digest or model_digest(opened.checkpoint)
        if made.model_digest == digest:
            found.append((folder, made))
    if not found:
        return None
    usual = for_search(opened.checkpoint.meta)[:2]
    # The workdir's own, else what "auto" stood for at first, else the newest.
    folder, made = min(
        found,
        key=lambda each: (
            each[0] != own,
            (each[1].sizes, each[1].test_mode) != usual,
        ),
    )
    return Choice(
        made.sizes,
        made.test_mode,
        made.pooling_exponent,
        f"as the descriptors in {folder.parent}",
    )
