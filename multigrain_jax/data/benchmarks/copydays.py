"""INRIA Copydays: edited copies look for their original."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    METRICS_WITH_THRESHOLD,
    Benchmark,
    BenchmarkFiles,
    Protocol,
    file_names,
    first_folder,
    require_count,
    require_files,
)
from multigrain_jax.data.benchmarks.others import (
    DISTRACTORS,
    refuse_own,
    require_any,
)
from multigrain_jax.data.sources.folder import read_list_file, require_folder
from multigrain_jax.data.sources.scan import Sieve, scan
from multigrain_jax.errors import InputError

ORIGIN = (
    "the photos are on INRIA's page of the Copydays dataset (Jégou, Douze and Schmid "
    "2008), as copydays_original, copydays_crop, copydays_jpeg and copydays_strong"
)
DISTRACTORS_ORIGIN = (
    "CD10k takes 10 000 photos of YFCC100M; lists of them are in the repositories of "
    "the works that report it"
)
# protocol -> (the folder's spellings, its subfolders)
LEVELS = {
    "crop": (("crops", "crop"), (10, 15, 20, 30, 40, 50, 60, 70, 80)),
    "jpeg": (("jpegqual", "jpeg"), (3, 5, 8, 10, 15, 20, 30, 50, 75)),
}


def load_copydays(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """Copydays: each copy looks for its original among originals and distractors.

    Args:
        files: `root` has the originals, or a folder `original` of them; `crops` or
            `crop` and `jpegqual` or `jpeg` with a folder per level; `strong`.
        counts: `originals` (also copies per level), `strong` and, if there are any,
            `distractors`.

    Raises:
        InputError: images are missing, or distractors are originals or copies.
    """
    folder = first_folder(files.root, ("original",))
    originals = _image_names(folder)
    copies: list[str] = []
    kinds: list[str] = []
    for kind, (spellings, levels) in LEVELS.items():
        below = first_folder(files.root, spellings)
        below = files.root / spellings[0] if below == files.root else below
        names = [f"{level}/{name}" for level in levels for name in originals]
        copies += require_files(f"copydays, {kind}", below, names, origin=ORIGIN)
        kinds += [kind] * len(names)
    strong = _image_names(files.root / "strong")
    copies += [str(files.root / "strong" / name) for name in strong]
    kinds += ["strong"] * len(strong)
    for what, below, found, missing in (
        ("originals", folder, originals, _missing_originals(copies, originals)),
        ("strong", files.root / "strong", strong, ()),
    ):
        require_count(
            f"copydays, {what}",
            below,
            found=len(found),
            expected=counts[what],
            origin=ORIGIN,
            missing=missing,
        )
    own = [str(folder / name) for name in originals]
    distractors = _list_distractors(files, counts)
    refuse_own(distractors, [*own, *copies], key=DISTRACTORS)
    num_database = len(originals) + len(distractors)
    return Benchmark(
        name="copydays",
        root=files.root,
        paths=[*own, *distractors, *copies],
        queries=num_database + np.arange(len(copies)),
        database=np.arange(num_database),
        protocols=_protocols(copies, np.array(kinds), originals),
    )


def _image_names(folder: Path) -> list[str]:
    return [name for name in file_names(folder) if re.fullmatch(r"\d{6}\.jpg", name)]


def _original_of(copy: str) -> str:
    """A copy is called block · 100 + n, its original block · 100."""
    return f"{Path(copy).name[:4]}00.jpg"


def _missing_originals(copies: Sequence[str], originals: Sequence[str]) -> list[str]:
    return sorted({_original_of(copy) for copy in copies} - set(originals))


def _protocols(
    copies: Sequence[str], kinds: np.ndarray, originals: Sequence[str]
) -> list[Protocol]:
    missing = _missing_originals(copies, originals)
    if missing:
        raise InputError(
            f"copydays: copies without an original: {missing[:3]}; {ORIGIN}"
        )
    positions = {name: position for position, name in enumerate(originals)}
    positives = [np.array([positions[_original_of(copy)]]) for copy in copies]
    nothing = np.empty(0, np.int64)
    protocols = []
    for name in (*LEVELS, "strong", "all"):
        queries = np.flatnonzero((kinds == name) | (name == "all"))
        protocols.append(
            Protocol(
                name,
                METRICS_WITH_THRESHOLD,
                queries,
                [positives[query] for query in queries],
                [nothing] * len(queries),
            )
        )
    return protocols


def _list_distractors(files: BenchmarkFiles, counts: Mapping[str, int]) -> list[str]:
    folder = files.distractors
    if folder is None:
        if files.distractor_list is not None:
            raise InputError(
                f"{DISTRACTORS}: found nothing, expected the folder of the images that "
                f"{files.distractor_list} lists (data.distractor_list); give it with "
                f"--config.{DISTRACTORS}=DIR; {DISTRACTORS_ORIGIN}"
            )
        return []
    require_folder(
        folder, key=DISTRACTORS, more=f"; nothing is downloaded, {DISTRACTORS_ORIGIN}"
    )
    sieve = Sieve(files.exclude, "refuse")
    if files.distractor_list is None:
        names = scan(folder, sieve).files
        require_any(names, folder, key=DISTRACTORS, origin=DISTRACTORS_ORIGIN)
    else:
        listed, _ = read_list_file(
            files.distractor_list, root=Path(), sieve=sieve, instances=None
        )
        names = list(dict.fromkeys(file.path for file in listed))
    require_count(
        "copydays, distractors",
        folder,
        found=len(names),
        expected=counts["distractors"],
        origin=DISTRACTORS_ORIGIN,
    )
    return require_files(
        "copydays, distractors", folder, names, origin=DISTRACTORS_ORIGIN
    )
