"""ImageNet (ILSVRC 2012) as it is unpacked: labels 0 to 999 by sorted WordNet id."""

import re
from pathlib import Path

from multigrain_jax.data.image_file import image_suffixes
from multigrain_jax.data.sources.folder import ImageFile, index_folder
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.errors import InputError
from multigrain_jax.files import MAX_TEXT_BYTES, read_small

SPLIT_FOLDERS = {
    "train": ("train", "ILSVRC2012_img_train"),
    "val": ("val", "ILSVRC2012_img_val"),
}
META_FILE = "meta.mat"
GROUND_TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"


def imagenet_files(
    root: Path, *, split: str, sieve: Sieve
) -> tuple[list[ImageFile], list[str]]:
    """The images of a split, and the WordNet ids in the order of their labels.

    Class folders named by WordNet id; or, for "val", the flat folder with the devkit's
    `meta.mat` and ground-truth text in `root` or up to two folders below it.

    Raises:
        InputError: the folders or the devkit's files are not there.
    """
    folders = SPLIT_FOLDERS.get(split, (split,))
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        found = sorted(p.name for p in root.iterdir()) if root.is_dir() else "nothing"
        raise InputError(
            f"ImageNet's {split} images: expected one of {', '.join(folders)} in "
            f"data.root = {root}, found {found}; give the folder that holds them, or "
            "another split"
        )
    suffixes = image_suffixes()
    flat = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes]
    if flat:
        return _flat_validation(root, flat)
    files, names = index_folder(folder, split=None, sieve=sieve, instances=None)
    strangers = [name for name in names if not re.fullmatch(r"n\d{8}", name)]
    if strangers:
        raise InputError(
            f"{folder}: found class folders {strangers[:3]}, expected WordNet ids such "
            "as n01440764; for other data use data.source = 'folder'"
        )
    return files, names


def _flat_validation(
    root: Path, images: list[Path]
) -> tuple[list[ImageFile], list[str]]:
    meta, truth = (_find_devkit(root, name) for name in (META_FILE, GROUND_TRUTH_FILE))
    if meta is None or truth is None:
        raise InputError(
            f"{images[0].parent}: flat validation images need the devkit's {META_FILE} "
            f"and {GROUND_TRUTH_FILE} in {root} or below; found "
            f"{'no' if meta is None else 'a'} {META_FILE} and "
            f"{'no' if truth is None else 'a'} {GROUND_TRUTH_FILE}; unpack "
            "ILSVRC2012_devkit_t12 there"
        )
    ids_by_number = _read_meta(meta)
    data = read_small(truth, max_bytes=MAX_TEXT_BYTES)
    lines = data.decode("utf-8-sig", errors="replace").split()
    wrong = [line for line in lines if line not in ids_by_number]
    if wrong:
        raise InputError(
            f"{truth}: {len(wrong)} of {len(lines)} lines, such as {wrong[0]!r}, are "
            f"not among the {len(ids_by_number)} class numbers of {meta}; take both "
            "from the same devkit"
        )
    if len(lines) != len(images):
        raise InputError(
            f"{truth}: {len(lines)} labels for {len(images)} images in "
            f"{images[0].parent}; expected one for each: unpack all images there, and "
            "nothing else"
        )
    names = sorted(ids_by_number.values())
    labels = {name: label for label, name in enumerate(names)}
    # The k-th line belongs to the k-th image by name.
    return [
        ImageFile(str(path), labels[ids_by_number[line]])
        for path, line in zip(images, lines, strict=True)
    ], names


def _find_devkit(root: Path, name: str) -> Path | None:
    # Not a search of the whole tree: that would walk a million images.
    for pattern in (name, f"*/{name}", f"*/data/{name}"):
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    return None


def _read_meta(path: Path) -> dict[str, str]:
    """The devkit's class number -> WordNet id, of the 1000 leaf classes."""
    # SciPy comes with JAX.
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            synsets = loadmat(file, squeeze_me=True)["synsets"]
        return {
            str(int(row["ILSVRC2012_ID"])): str(row["WNID"])
            for row in synsets
            if int(row["num_children"]) == 0
        }
    except Exception as error:
        # SciPy raises several kinds for files that are damaged or something else.
        raise InputError(
            f"{path}: the devkit's table `synsets` was expected, and reading it failed "
            f"({type(error).__name__}: {error}); unpack ILSVRC2012_devkit_t12 anew"
        ) from error
