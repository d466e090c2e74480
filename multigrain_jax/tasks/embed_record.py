"""What `embed` recorded of the run that made a descriptor folder, and its photos."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import jax
import numpy as np

from multigrain_jax.bucket_copies import CopiedPath
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.data.bucket_paths import ADDRESSES, absolute_path, as_path
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.sources.open import PACKED, open_split
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.descriptors.describe import model_digest
from multigrain_jax.descriptors.folder import DESCRIPTOR_FOLDER, DescriptorSettings
from multigrain_jax.descriptors.in_bucket import on_this_machine
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.opening import Fits
from multigrain_jax.descriptors.roots import old_root
from multigrain_jax.errors import InputError, printable
from multigrain_jax.evaluation.sharing import require_same
from multigrain_jax.files import read_json
from multigrain_jax.pages.stored_photos import PhotoReader
from multigrain_jax.tasks.inputs import data_set_from_config
from multigrain_jax.weights import find_weights
from multigrain_jax.workdir import CONFIG_FILE, unescape_names

DECODED = {"fast": "fast", "exact": "exactly"}
# Where each photo is a file, and its path says all.
SOURCES_OF_FILES = ("folder", "imagenet")
# Keys of config.json that are read here and by the search -> the types of their values.
Keys = Mapping[str, tuple[type, ...]]
CHECKPOINT_KEYS: Keys = {"init_from": (str,), "init_step": (int, NoneType)}
PHOTO_KEYS: Keys = {
    "data.source": (str,),
    "data.root": (str, NoneType),
    "data.split": (str, NoneType),
    "data.list_file": (str, NoneType),
    "data.val_fraction": (float, int),
    "data.num_images": (int, NoneType),
    "data.local_cache_dir": (str, NoneType),
}

# Keys of `data` that older runs did not have -> what their photos were read with.
ADDED_KEYS: Mapping[str, Any] = {
    "local_cache_gb": None,
    "exclude": DEFAULT_EXCLUDE,
    "decoding": "auto",
    "decode": "exact",
    "background": "white",
    "depth": "metadata",
    "max_megapixels": VIEWER.max_megapixels,
}


def embed_config(database: str | Path, keys: Keys) -> dict[str, Any] | None:
    """The configuration of the run of `embed` that made some descriptors.

    Args:
        database: its workdir, or the descriptor folder in it.
        keys: what is needed of it, a dot between the names of nested keys.

    Returns:
        What config.json has, or None where there is none.

    Raises:
        InputError: it cannot be read, or is not what `embed` writes.
    """
    path = on_this_machine(_as_given(database))
    for folder in (path, path.absolute().parent):
        file = folder / CONFIG_FILE
        try:
            config = read_json(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _damaged(file, reason) from error
        config = unescape_names(config)
        if not isinstance(config, dict):
            raise _damaged(file, "not a JSON object")
        for key, types in keys.items():
            value = config
            for name in key.split("."):
                if not isinstance(value, dict) or name not in value:
                    raise _damaged(file, f"{key} is missing")
                value = value[name]
            if not isinstance(value, types):
                raise _damaged(file, f"{key} is {value!r}")
        return config
    return None


def _as_given(database: str | Path) -> Path:
    """A path as it was given; that of a copy of a bucket's folder stays one."""
    return database if isinstance(database, CopiedPath) else as_path(database)


def open_collection(settings: Mapping[str, Any]) -> DescriptorIndex:
    """`open_database` as a configuration has it, and a line that says what it is.

    Of several collections in a workdir it is one that the checkpoint `init_from` has
    made, where the configuration has that key and names one.

    Raises:
        InputError: as of `open_database`; or no such checkpoint.
    """

    @functools.cache
    def digest() -> str:
        checkpoint = load_checkpoint(
            find_weights(settings["init_from"]),
            step=settings["init_step"],
            raw=settings["init_raw"],
        )
        return model_digest(checkpoint)

    index = open_database(
        settings["database"],
        verify=settings["verify"],
        root=settings["data"]["root"] if "data" in settings else None,
        fits=(lambda found: found.model_digest == digest())
        if settings.get("init_from")
        else None,
    )
    _say_what_it_is(index)
    return index


def _say_what_it_is(index: DescriptorIndex) -> None:
    made, made_by = index.settings, None
    assert made is not None  # it was opened from a folder
    with contextlib.suppress(InputError):  # who needs it will say so
        made_by = embed_config(workdir_of(index), CHECKPOINT_KEYS)
    sizes = " and ".join(map(str, made.sizes))
    of_whom = f", by {made_by['init_from']}" if made_by else ""
    said = f"collection {workdir_of(index)}: {int(index.live.sum())} photos"
    how = f"at {sizes} pixels ({made.test_mode}, decoded {DECODED[made.decode]})"
    how += f", p = {made.pooling_exponent:g}"
    print(printable(f"{said}, {made.backbone} {how}{of_whom}"), flush=True)


def comparable(settings: DescriptorSettings) -> Fits:
    """Whether descriptors can be compared with some; how they are stored may differ."""
    return lambda found: found._replace(dtype=settings.dtype) == settings


def open_database(
    path: str | Path, *, verify: bool, root: str | None, fits: Fits | None = None
) -> DescriptorIndex:
    """The descriptors that are searched, with the paths that their photos have now.

    Args:
        path: a workdir of `embed`, or a folder of descriptors.
        verify: whether all of it is checked at once.
        root: where the photos are now; None: where they were.
        fits: of several collections those come first that it says so of.

    Raises:
        InputError: no such folder, damage, or none of its photos is below `root`.
    """
    index = open_together(path, fits=fits)
    if verify:
        index.verify()
    if root is None:
        return index
    new = absolute_path(root)
    assert index.opened is not None  # it was opened from a folder
    roots = index.opened.head.roots
    if not roots:
        config = embed_config(workdir_of(index), {"data.root": (str, NoneType)})
        roots = (config["data"]["root"],) if config and config["data"]["root"] else ()
    old = old_root(roots, index.paths(np.flatnonzero(index.live)), new)
    if old is None:
        raise InputError(
            f"data.root: found none of the photos of {path} below {new}, expected the "
            f"folder that {' or '.join(roots) or 'their folder'} is now; give that one"
        )
    if old != new:
        print(
            f"photos of {printable(str(old))} are looked for in {printable(str(new))}"
        )
        index.move(old, new)
    return index


def open_together(path: str | Path, *, fits: Fits | None = None) -> DescriptorIndex:
    """`DescriptorIndex.open`; of several hosts all have to call it.

    Each searches its share of the rows: another number of them would be shared out
    differently, and some would be searched by none.

    Raises:
        InputError: no such folder, damage, or hosts that see different rows.
    """
    index = DescriptorIndex.open(as_path(path), fits=fits)
    if jax.process_count() > 1:
        assert index.opened is not None  # it was opened from a folder
        digest = hashlib.sha256(repr(index.opened.head[:3]).encode())
        digest.update(repr(index.opened.head.shards).encode())
        digest.update(index.live.tobytes())
        require_same(
            len(index),
            digest.digest(),
            what=f"descriptors in {path}, perhaps while `embed` writes there",
            beside="shards, or photos that are gone",
        )
    return index


def roots_of(index: DescriptorIndex, *, root: str | None) -> list[str]:
    """The folders that the photos of a collection are below, where they are now.

    Args:
        index: the collection.
        root: where the photos of one of its folders are now; None: where they were.
    """
    assert index.opened is not None  # it was opened from a folder
    roots = list(index.opened.head.roots)
    if not roots:
        made_by = embed_config(workdir_of(index), {"data.root": (str, NoneType)})
        known = made_by["data"]["root"] if made_by else None
        roots = [str(known)] if known else []
    if root is not None:
        roots.append(absolute_path(root))
    return [each for each in roots if os.path.isabs(each)]


def require_files(index: DescriptorIndex, database: str) -> None:
    """Refuse a collection whose photos are no files of this machine's.

    Raises:
        InputError: some are in a bucket.
    """
    paths = index.paths(np.flatnonzero(index.live))
    if found := [path for path in paths if path.startswith(ADDRESSES)]:
        raise InputError(
            f"database: {len(found)} photos of {database} are in a bucket, such as "
            f"{printable(found[0])}, and the server shows and moves files of this "
            "machine; mount the bucket and give the folder with --config.data.root=DIR"
        )


def workdir_of(index: DescriptorIndex) -> Path:
    """The workdir of the run that made a collection."""
    assert index.opened is not None  # it was opened from a folder
    folder = index.opened.folder
    return folder.parent if folder.name == DESCRIPTOR_FOLDER else folder


def print_missing(photos: PhotoReader) -> None:
    """A line where photos that a page wanted to show are not there."""
    if photos.missing:
        print(
            f"{len(photos.missing)} photos that the page shows are not there any more, "
            f"such as {printable(min(photos.missing))}: if the collection was moved, "
            "say where with --config.data.root=DIR"
        )


def photo_reader(database: str | Path) -> PhotoReader:
    """Reads the photos of a workdir of `embed`, or of the descriptor folder in it."""
    return PhotoReader(partial(open_photos, database), collection=str(database))


def open_photos(database: str | Path) -> ImageSource | None:
    """The data set that photos of a workdir of `embed` are in; None: they are files."""
    config = embed_config(database, PHOTO_KEYS)
    if config is None or config["data"]["source"] in SOURCES_OF_FILES:
        return None
    config = {"verify_cache": False, **config}
    config["data"] = {**ADDED_KEYS, **config["data"]}
    # The parts of large files are told by names: runs before may have read others.
    split = None if config["data"]["source"] in PACKED else config["data"]["split"]
    return open_split(data_set_from_config(config), split)


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(
        f"{file}: {reason}; the configuration of a run of `embed` was expected: remove "
        "it, and run `embed` there as before, which writes it anew and embeds no photo "
        "again"
    )
