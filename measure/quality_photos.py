"""The photos of measure/quality.py: stored once, parted into folds, ready to be scored.

Nothing here imports JAX: processes that only decode start without it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measure.machine import num_cores
from multigrain_jax.data import edits
from multigrain_jax.data.decoding import PLAIN, VIEWER
from multigrain_jax.data.edits import EDITS
from multigrain_jax.data.eval_batches import make_eval_batches, plan_batches
from multigrain_jax.data.reading import Reading, read_image
from multigrain_jax.data.sources.copies import CopySource
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource, open_source
from multigrain_jax.data.sources.quickstart import QuickstartSource
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.files import write_atomically

QUICKSTART = "quickstart"
SPLITS = TRAIN, TEST = "train", "test"
ORIGINALS = "originals"
READING = Reading(num_workers=0, prefetch=4, timeout_s=600.0)
EVAL_BATCH = 64
# Photos whose thumbnails are more alike are near duplicates: of the quick start's 675,
# seven pairs, all of the same class.
THUMBNAIL, NEARLY_THE_SAME = 16, 0.9


@dataclass(frozen=True)
class Photos:
    """Stored photos, in the order of the data set.

    Attributes:
        root: the folder that `names` are relative to.
        names: of each split, the files.
        labels: of each split, indices of `class_names`.
        groups: for each training photo the first one that it is nearly the same as.
        class_names: of both splits.
        pixels: how they are decoded: "plain" or "viewer".
    """

    root: Path
    names: dict[str, list[str]]
    labels: dict[str, list[int]]
    groups: list[int]
    class_names: list[str]
    pixels: str

    def source(self, split: str, rows: Sequence[int] | np.ndarray) -> FileSource:
        """Some photos of a split."""
        names, labels = self.names[split], self.labels[split]
        return FileSource(
            [ImageFile(str(self.root / names[r]), labels[r]) for r in rows],
            class_names=self.class_names,
            decoding=PLAIN if self.pixels == "plain" else VIEWER,
            local_cache_dir=None,
        )

    def sizes(self, split: str) -> list[int]:
        """How many bytes each photo of a split has: other photos have others."""
        return [(self.root / name).stat().st_size for name in self.names[split]]

    def write_list(
        self, path: Path, split: str, rows: Sequence[int] | np.ndarray
    ) -> None:
        """A list file of some photos, as data.list_file takes it."""
        names, labels = self.names[split], self.labels[split]
        lines = [f"{names[r]}\t{self.class_names[labels[r]]}\n" for r in rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write("".join(lines).encode())


def store_photos(given: str, folder: Path, *, side: int | None) -> Photos:
    """The photos of a data set in a folder; what is stored already is taken.

    The list of photos, photos.json, says which are near duplicates: where it is there
    without the photos, from another machine, the parts are the same as there.

    Args:
        given: "quickstart", or a folder with parts `train` and `test`.
        folder: where they go: another for each data set and each `side`.
        side: of the stored photos, the shorter one in pixels, as PNG; None stores the
            files as they are.

    Raises:
        InputError: no such photos, or the folder holds those of another data set.
    """
    # A folder is the same from wherever it is named.
    place = given if given == QUICKSTART else os.path.abspath(given)
    made_of, listing = {"photos": place, "side": side}, folder / "photos.json"
    found: dict[str, Any] = {}
    if listing.is_file():
        found = json.loads(listing.read_text(encoding="utf-8"))
        stored = found.pop("made_of")  # by earlier versions as it was given
        if stored["photos"] != QUICKSTART:
            stored["photos"] = os.path.abspath(stored["photos"])
        if stored != made_of:
            raise InputError(
                f"{listing}: expected photos of {made_of}, found others; remove the "
                "folder or choose another"
            )
        if all((folder / names[-1]).is_file() for names in found["names"].values()):
            return Photos(root=folder, **found)
    sources = {split: _open(given, split) for split in SPLITS}
    classes = list(sources[TRAIN].class_names)
    if list(sources[TEST].class_names) != classes:
        raise InputError(f"{given}: train and test have other classes")
    groups = found.get("groups") or near_duplicate_groups(sources[TRAIN]).tolist()
    photos = Photos(
        root=folder,
        names={s: _store_split(sources[s], folder, s, side) for s in SPLITS},
        labels={s: sources[s].labels.tolist() for s in SPLITS},
        groups=groups,
        class_names=classes,
        pixels="plain" if given == QUICKSTART else "viewer",
    )
    told = {name: value for name, value in vars(photos).items() if name != "root"}
    with write_atomically(listing) as file:
        file.write(json.dumps({"made_of": made_of, **told}).encode())
    return photos


def _open(given: str, split: str) -> ImageSource:
    if given == QUICKSTART:
        return QuickstartSource(split)
    return open_source(
        source="folder",
        root=given,
        split=split,
        list_file=None,
        val_fraction=0.0,
        num_images=None,
        local_cache_dir=None,
        decoding=VIEWER,
        exclude=DEFAULT_EXCLUDE,
        unreadable_folders="refuse",
        instances=None,
    )


def _store_split(
    source: ImageSource, folder: Path, split: str, side: int | None
) -> list[str]:
    """The names of a split's files, which are written, relative to the folder."""

    def store(index: int) -> str:
        label = int(source.labels[index])
        suffix = ".png" if side else Path(source.describe(index)).suffix or ".jpg"
        name = f"{split}/{label:03d}/{index:06d}{suffix}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if side is None:
            path.write_bytes(source.read(index))
            return name
        image = read_image(source, index)
        factor = side / min(image.size)
        if factor < 1:
            width, height = (max(side, round(factor * each)) for each in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        image.save(path)
        return name

    with ThreadPoolExecutor(num_cores()) as pool:
        return list(pool.map(store, range(len(source))))


def near_duplicate_groups(source: ImageSource) -> np.ndarray:
    """For each photo the first one that it is nearly the same as: int64 [N].

    Alike are photos whose thumbnails of 16 x 16, mean taken away and of unit length,
    have an inner product of 0.9; groups are what such pairs connect.
    """

    def thumbnail(index: int) -> np.ndarray:
        image = read_image(source, index).resize(
            (THUMBNAIL, THUMBNAIL), Image.Resampling.BOX
        )
        values = np.asarray(image, np.float32).ravel()
        values -= values.mean()
        return values / max(1e-6, float(np.linalg.norm(values)))

    with ThreadPoolExecutor(num_cores()) as pool:
        rows = np.stack(list(pool.map(thumbnail, range(len(source)))))
    first = np.arange(len(rows))
    for a, b in np.argwhere(np.triu(rows @ rows.T >= NEARLY_THE_SAME, k=1)).tolist():
        low, high = sorted((first[a], first[b]))
        first[first == high] = low
    return first


def assign_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int) -> np.ndarray:
    """The fold of each photo: int64 [N].

    Each class is cut into `num_folds` blocks of neighbouring rows, as equal as can be;
    then every photo goes to the fold of the first one of its group.

    Args:
        labels: int [N].
        groups: int [N], for each photo the first one of its near duplicates.
        num_folds: at least 2.
    """
    folds = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        folds[members] = np.arange(len(members)) * num_folds // len(members)
    return folds[groups]


def network_inputs_of(
    photos: Photos, split: str, edit: str, *, test_size: int, folder: Path
) -> np.ndarray:
    """What the network sees of a split's photos, edited: uint8 [N, S, S, 3].

    Made once by the package's own evaluation ("square"), and kept in a file.

    Args:
        photos: the photos.
        split: which of them.
        edit: a key of `EDITS`, or `ORIGINALS`.
        test_size: S, in pixels.
        folder: where the file is kept.

    Raises:
        InputError: a photo that cannot be read.
    """
    everything = np.arange(len(photos.names[split]))
    # With other photos or other edits it is another file.
    told = json.dumps(
        [split, edit, test_size, photos.names[split], photos.sizes(split)]
    ).encode()
    code = Path(edits.__file__).read_bytes()
    name = hashlib.sha256(told + code).hexdigest()[:16]
    path = folder / f"{split}-{test_size}-{name}.npy"
    if path.is_file():
        return np.load(path, mmap_mode="r")
    source: ImageSource = photos.source(split, everything)
    if edit != ORIGINALS:
        source = CopySource(source, everything, EDITS[edit])
    plan = plan_batches(
        source,
        test_size=test_size,
        test_mode="square",
        batch_size=EVAL_BATCH,
        smallest_side=1,
        timeout_s=READING.timeout_s,
    )
    inputs = np.empty((len(source), test_size, test_size, 3), np.uint8)
    for batch in make_eval_batches(source, plan, reading=READING):
        if np.any(batch["bad"]):
            raise InputError(f"{split}: a photo of {photos.root} cannot be read")
        mask = batch["mask"]
        inputs[batch["index"][mask]] = batch["image"][mask]
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        np.save(file, inputs)
    return np.load(path, mmap_mode="r")
