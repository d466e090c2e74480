"""DISC21: edited photos look for their original, and most of them have none.

Douze et al., "The 2021 image similarity dataset and challenge", arXiv 2106.09672.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from multigrain_jax.data.benchmarks.benchmark import (
    METRICS_OVER_ALL,
    Benchmark,
    BenchmarkFiles,
    Protocol,
    file_names,
    first_folder,
    name_some,
    require_count,
)
from multigrain_jax.data.benchmarks.others import (
    TRAINING,
    refuse_own,
    require_any,
)
from multigrain_jax.data.notes import PASSED_OVER
from multigrain_jax.data.sources.folder import require_folder
from multigrain_jax.errors import InputError
from multigrain_jax.files import MAX_TEXT_BYTES, read_small

ORIGIN = (
    "the images are on the page of the Image Similarity dataset DISC21, and the ground "
    "truth is there and in the repository of the Image Similarity Challenge 2021"
)
QUERY_FOLDERS = ("queries", "dev_queries")
TRUTH_FILES = ("ground_truth.csv", "public_ground_truth.csv", "dev_ground_truth.csv")


def load_disc21(files: BenchmarkFiles, counts: Mapping[str, int]) -> Benchmark:
    """DISC21: all (query, reference) pairs are ranked together.

    The queries are those that the ground truth lists, with or without a reference, or
    those of `query_list` instead; the references all of their folder, or those of
    `reference_list`. Pairs of the ground truth with a photo that a list leaves out are
    passed over, and a remark says how many: of a subset such as the challenge's
    subset_1, its own ground truth and the whole one give the same scores.

    Args:
        files: `root` has the folders `queries` (or `dev_queries`) and `references`,
            and, if `ground_truth` is not given, a ground truth such as
            public_ground_truth.csv, also in a folder `list_files`.
        counts: `queries`, `references`, `matches` and, if it is given, `training`; the
            first three are not asked for where there is a list of references.

    Raises:
        InputError: files are missing, the ground truth cannot be read, or training
            photos are queries or references.
    """
    queries_folder = first_folder(files.root, QUERY_FOLDERS)
    references_folder = files.root / "references"
    truth_file = files.ground_truth or _find_truth(files.root)
    pairs, query_names = _read_truth(truth_file)
    if files.query_list is not None:
        query_names = _read_list(files.query_list, key="query_list")
    query_names = list(dict.fromkeys(query_names))
    references = _references(references_folder, files.reference_list)
    positions = {Path(name).stem: number for number, name in enumerate(references)}
    query_files = {Path(name).stem: name for name in file_names(queries_folder)}
    pairs, remarks = _of_lists(
        pairs, files, truth_file, names=(frozenset(query_names), positions.keys())
    )
    _require_named("queries", queries_folder, query_names, query_files)
    _require_named("references", references_folder, [r for _, r in pairs], positions)
    training = _training_names(files.training)
    listings: list[tuple[str, Path | None, Sequence[object], str]] = [
        ("references", references_folder, references, "R"),
        ("queries", files.query_list or truth_file, query_names, ""),
        ("matches", truth_file, pairs, ""),
        ("training", files.training, training, "T"),
    ]
    if files.reference_list is not None:
        listings = listings[-1:]
    for what, folder, found, letter in listings:
        if folder is not None and len(found) != counts[what]:
            require_count(
                f"disc21, {what}",
                folder,
                found=len(found),
                expected=counts[what],
                origin=ORIGIN,
                missing=_missing_numbers(letter, found, counts[what]) if letter else (),
            )
    positives: dict[str, list[int]] = {name: [] for name in query_names}
    for query, reference in pairs:
        positives[query].append(positions[reference])
    own = [str(references_folder / name) for name in references]
    own += [str(queries_folder / query_files[name]) for name in query_names]
    others = [str(files.training / name) for name in training if files.training]
    refuse_own(others, own, key=TRAINING)
    return Benchmark(
        name="disc21",
        root=files.root,
        paths=[*own, *others],
        database=np.arange(len(references)),
        queries=len(references) + np.arange(len(query_names)),
        training=len(own) + np.arange(len(others)),
        protocols=_protocols(positives, with_training=bool(others)),
        remarks=remarks,
    )


def _of_lists(
    pairs: list[tuple[str, str]],
    files: BenchmarkFiles,
    truth_file: Path,
    *,
    names: tuple[Collection[str], Collection[str]],
) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs with both photos in the lists, and a line for each list that drops any.

    Args:
        pairs: of the whole ground truth.
        files: the lists, and the ground truth if it is given.
        truth_file: the ground truth.
        names: of the queries and of the references that take part.

    Raises:
        InputError: there are pairs, and none is left.
    """
    kept, remarks = pairs, []
    lists = (("query", files.query_list), ("reference", files.reference_list))
    for side, (what, listed) in enumerate(lists):
        if listed is None:
            continue
        among = [pair for pair in kept if pair[side] in names[side]]
        if len(among) < len(kept):
            remarks.append(
                f"{truth_file}{PASSED_OVER}{len(kept) - len(among)} of {len(pairs)} "
                f"pairs, whose {what} is not in {listed} (data.{what}_list)"
            )
        kept = among
    if pairs and not kept:
        given = " and ".join(f"data.{what}_list" for what, listed in lists if listed)
        raise InputError(
            f"data.ground_truth: found none of the {len(pairs)} pairs of {truth_file} "
            f"in {given}, expected pairs of the photos that are listed there; give the "
            "ground truth of these lists with --config.data.ground_truth=FILE, or the "
            f"lists of this one with --config.{given.split()[0]}=FILE"
        )
    return kept, remarks


def _protocols(
    positives: Mapping[str, list[int]], *, with_training: bool
) -> list[Protocol]:
    """Scores as they are and, with a training set, normalised by it."""
    found = [np.array(references, np.int64) for references in positives.values()]
    junk = [np.empty(0, np.int64)] * len(found)
    everything = np.arange(len(found))
    raw = Protocol("raw", METRICS_OVER_ALL, everything, found, junk)
    if not with_training:
        return [raw]
    return [
        raw,
        Protocol(
            "normalized", METRICS_OVER_ALL, everything, found, junk, normalized=True
        ),
    ]


def _find_truth(root: Path) -> Path:
    candidates = [
        folder / name for folder in (root, root / "list_files") for name in TRUTH_FILES
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"disc21: no ground truth in {root}, expected one of {', '.join(TRUTH_FILES)}; "
        f"nothing is downloaded, {ORIGIN}"
    )


def _read_truth(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """The (query, reference) pairs, and all queries, those without reference too."""
    pairs, queries = [], []
    try:
        # Spreadsheets begin "CSV UTF-8" with a byte order mark.
        text = read_small(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"ground truth {path}: cannot be read ({error}), expected a CSV file; "
            f"{ORIGIN}"
        ) from error
    for number, row in enumerate(rows):
        if number == 0 and row[0].strip() == "query_id":
            continue
        if len(row) != 2 or not row[0].strip():
            raise InputError(
                f"ground truth {path}, row {number + 1}: found {row}, "
                "expected a query and its reference, which may be empty; mend the row, "
                f"or take the file anew: {ORIGIN}"
            )
        query, reference = (cell.strip() for cell in row)
        queries.append(query)
        if reference:
            pairs.append((query, reference))
    return list(dict.fromkeys(pairs)), queries


def _references(folder: Path, listed: Path | None) -> list[str]:
    """The files of the references, sorted by name: all of them, or those of a list."""
    present = file_names(folder)
    if listed is None:
        return present
    wanted = set(_read_list(listed, key="reference_list"))
    files = {Path(name).stem: name for name in present}
    _require_named("references", folder, sorted(wanted), files)
    return [name for stem, name in files.items() if stem in wanted]


def _training_names(folder: Path | None) -> list[str]:
    """The files of the training photos, if a folder of them is given."""
    if folder is None:
        return []
    require_folder(folder, key=TRAINING, more=f"; nothing is downloaded, {ORIGIN}")
    names = file_names(folder)
    require_any(names, folder, key=TRAINING, origin=ORIGIN)
    return names


def _read_list(path: Path, *, key: str) -> list[str]:
    try:
        text = read_small(path, max_bytes=MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{key} {path}: cannot be read ({error}), expected a text file with a name "
            f"on each line; give it with --config.data.{key}=FILE, or leave it out"
        ) from error
    return [Path(line).stem for line in text.split()]


def _require_named(
    what: str, folder: Path, names: list[str], present: Mapping[str, object]
) -> None:
    missing = sorted({f"{name}.jpg" for name in names if name not in present})
    if missing:
        raise InputError(
            f"disc21, {what}: {len(missing)} files of the ground truth or a list are "
            f"not in {folder}: {name_some(missing)}; nothing is downloaded, {ORIGIN}"
        )


def _missing_numbers(letter: str, names: Sequence[object], expected: int) -> list[str]:
    """Files are called R000000.jpg and so on."""
    numbered = (f"{letter}{number:06d}.jpg" for number in range(expected))
    present = set(names)
    return [name for name in numbered if name not in present]
