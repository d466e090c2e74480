"""Sources of photos as tests open them: of every option that which is none."""

from pathlib import Path
from typing import Any

from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.open import open_source
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.data.sources.source import ImageSource


def open_photos(
    root: str | Path | None, split: str | None = None, **options: Any
) -> ImageSource:
    """`open_source` of a folder; other options by name."""
    defaults = {
        "source": "folder",
        "list_file": None,
        "val_fraction": 0.0,
        "instances": None,
        "num_images": None,
        "local_cache_dir": None,
        "decoding": VIEWER,
        "exclude": DEFAULT_EXCLUDE,
        "unreadable_folders": "refuse",
    }
    return open_source(root=root, split=split, **(defaults | options))


def described(source: ImageSource, root: Path) -> list[str]:
    """Where each image of a source is, relative to `root`."""
    prefix = f"{root}/"
    return [source.describe(i).removeprefix(prefix) for i in range(len(source))]
