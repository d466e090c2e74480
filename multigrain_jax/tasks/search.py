"""Task `search`: the most similar photos of a collection, for photos or descriptors."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.sources.folder import UNLABELLED, ImageFile, index_folder
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.data.sources.scan import Sieve
from multigrain_jax.descriptors.approximate.search import ApproximateIndex
from multigrain_jax.descriptors.describe import (
    embed_plan,
    plan_queries,
    settings_of_model,
)
from multigrain_jax.descriptors.folder import (
    HEAD_FILE,
    require_same_settings,
)
from multigrain_jax.descriptors.index import DescriptorIndex, ScoreNormalization
from multigrain_jax.descriptors.opening import find_folder
from multigrain_jax.distributed import gather_rows, host_rows, own_folder
from multigrain_jax.errors import InputError
from multigrain_jax.growing_file import dispensable
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.pages.gallery import load_photo
from multigrain_jax.pages.gallery_page import write_retrieval_page
from multigrain_jax.pages.search_page import Found, LoadPhoto
from multigrain_jax.tasks.approximate import index_problems, open_index, recall_results
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    dtype_problems,
    normalization_problems,
    path_problems,
    refuse,
    require_photos,
)
from multigrain_jax.tasks.embed_record import (
    CHECKPOINT_KEYS,
    comparable,
    embed_config,
    open_collection,
    open_together,
    photo_reader,
    print_missing,
    workdir_of,
)
from multigrain_jax.tasks.idle import idle_of_search, idle_problems
from multigrain_jax.tasks.inputs import reading_from_config
from multigrain_jax.tasks.neighbours import expand_by_neighbours, nearest_photos
from multigrain_jax.tasks.normalization import (
    open_normalization,
    require_comparable,
    settings_of,
)
from multigrain_jax.tasks.photos import decoding_of_database, photo_problems
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.workdir import write_config, write_results, write_table


class Queries(NamedTuple):
    """What is looked for.

    Attributes:
        paths: of Q images.
        descriptors: [Q, D].
        num_unreadable: images that are not among them since they cannot be read.
        load: reads one for the page.
    """

    paths: list[str]
    descriptors: np.ndarray
    num_unreadable: int
    load: LoadPhoto = load_photo


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Search as the config says; returns what results.json holds.

    Of several hosts each reads its share of the descriptors, and process 0 has results.

    Raises:
        InputError: a config that cannot work, or queries that were not or cannot be
            embedded as the database was.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    index = open_collection(settings)
    require_photos(int(index.live.sum()), "database", config.database)
    normalization = open_normalization(settings, index)
    with open_index(settings, index) as searched:
        write_config(own_folder(workdir), settings)
        queries = _expanded(_open_queries(settings, index, workdir), settings, searched)
        photos = photo_reader(workdir_of(index))
        searching_since = time.perf_counter()
        found = find_neighbours(
            searched,
            queries,
            k=config.num_neighbours,
            normalization=normalization,
            load_found=photos,
        )
        seconds = time.perf_counter() - searching_since
        recall = recall_results(searched, queries.paths, queries.descriptors, settings)
    if jax.process_index():
        return {}
    leave_if_taken(workdir)
    columns = ("query", "rank", "path", "similarity")
    write_table(workdir / "results.csv", columns, found.table())
    num_database = int(index.live.sum())
    _write_page(workdir, found, num_database=num_database, k=config.num_neighbours)
    print_missing(photos)
    results = {
        "num_queries": len(found),
        "num_unreadable": queries.num_unreadable,
        "num_database": num_database,
        "search_seconds": seconds,
        **recall,
        "seconds": time.perf_counter() - started,
    }
    told = [f"{name:<14}  {value:g}" for name, value in results.items()]
    print("\n".join([*found.best(), *told]))
    write_results(workdir, results)
    return results


def _write_page(workdir: Path, found: Found, *, num_database: int, k: int) -> None:
    with dispensable(workdir / "report.html"):
        write_retrieval_page(
            workdir / "report.html",
            title="Search",
            subtitle=f"{len(found)} quer{'y' if len(found) == 1 else 'ies'} among "
            f"{num_database} photos",
            results=[],
            rows=found,
            note=f"The {k} most similar photos of each query, by the inner product of "
            "the descriptors.",
        )


def find_neighbours(
    index: DescriptorIndex | ApproximateIndex,
    queries: Queries,
    *,
    k: int,
    normalization: ScoreNormalization | None = None,
    load_found: LoadPhoto = load_photo,
) -> Found:
    """The k most similar images of each query, itself not among them.

    Links to one file are one image, which is found by the path of the first of them.

    Args:
        index: the database.
        queries: what is looked for.
        k: how many.
        normalization: of the similarities.
        load_found: reads a photo of the database for the page.
    """
    neighbours = nearest_photos(
        index, queries.paths, queries.descriptors, k=k, normalization=normalization
    )
    listed = [[(each.path, each.similarity) for each in own] for own in neighbours]
    return Found(queries.paths, listed, load_query=queries.load, load_found=load_found)


def _problems(settings: Mapping[str, Any]) -> list[str]:
    return [
        *path_problems(settings, ("database", "queries")),
        *photo_problems(settings["data"]),
        *dtype_problems(settings),
        *idle_problems(settings, idle_of_search(settings)),
        *normalization_problems(settings, training="score_normalization.training"),
        *index_problems(settings),
        *number_problems(settings),
    ]


def _open_queries(
    settings: Mapping[str, Any], index: DescriptorIndex, workdir: Path
) -> Queries:
    path = as_path(settings["queries"])
    sieve = Sieve(settings["data"]["exclude"], "skip")
    folder = find_folder(path, fits=comparable(settings_of(index)))
    if (folder / HEAD_FILE).exists():
        # Of the database itself, the photos are where those of the database are.
        itself = index.opened is not None and folder == index.opened.folder
        stored = index if itself else open_together(folder)
        require_comparable(stored, index, path)
        rows = np.flatnonzero(stored.live)
        require_photos(len(rows), "queries", settings["queries"])
        own = host_rows(len(stored))
        share = stored.read(own.start, own.stop - own.start)
        descriptors = gather_rows(share, count=len(stored))[rows]
        photos = photo_reader(workdir_of(stored))
        return Queries(stored.paths(rows), descriptors, 0, photos)
    if path.is_dir():
        folder = path.absolute()
        files, _ = index_folder(
            folder, split=None, sieve=sieve, instances=None, key="queries"
        )
    elif path.is_file():
        files = [ImageFile(str(path.absolute()), UNLABELLED)]
    else:
        raise InputError(
            f"queries: {path} was expected to be a photo, a folder of photos or one of "
            "descriptors, found nothing; give one with --config.queries=PATH"
        )
    return _embed_queries(settings, files, index, workdir, sieve.remarks)


def _expanded(
    queries: Queries,
    settings: Mapping[str, Any],
    index: DescriptorIndex | ApproximateIndex,
) -> Queries:
    """The queries, joined by their neighbours where that is wanted."""
    expansion = settings["query_expansion"]
    if not expansion["num_neighbours"]:
        return queries
    descriptors = expand_by_neighbours(
        index,
        queries.paths,
        queries.descriptors,
        num_neighbours=expansion["num_neighbours"],
        alpha=expansion["alpha"],
    )
    return queries._replace(descriptors=descriptors)


def _embed_queries(
    settings: Mapping[str, Any],
    files: Sequence[ImageFile],
    index: DescriptorIndex,
    workdir: Path,
    remarks: Sequence[str],
) -> Queries:
    """Queries that are photos, embedded as the database was."""
    wanted = settings_of(index)
    opened = open_query_model(settings, index)
    unlabelled = [ImageFile(file.path, UNLABELLED) for file in files]
    source = FileSource(
        unlabelled,
        class_names=[],
        decoding=decoding_of_database(
            wanted,
            max_megapixels=settings["data"]["max_megapixels"],
            database=as_path(settings["database"]),
        ),
        remarks=remarks,
        local_cache_dir=None,
    )
    devices = jax.device_count()
    # A photo alone is not worth a whole batch.
    rows = -(-min(settings["batch_size"], len(source)) // devices) * devices
    reading = reading_from_config(settings)
    plan = plan_queries(source, wanted, batch_size=rows, timeout_s=reading.timeout_s)
    paths: list[str] = []
    descriptors = [np.zeros((0, wanted.dim), np.float32)]
    batches = embed_plan(
        opened, source, plan, sizes=wanted.sizes, reading=reading, workdir=workdir
    )
    for batch in batches:
        good = ~batch.bad
        paths += [source.describe(int(number)) for number in batch.indices[good]]
        descriptors.append(np.asarray(batch.descriptors[good], np.float32))
    if not paths:
        raise InputError(
            f"queries: none of the {len(source)} photos of {settings['queries']} could "
            "be read; skipped.txt says why"
        )
    return Queries(paths, np.concatenate(descriptors), len(source) - len(paths))


def open_query_model(
    settings: Mapping[str, Any], index: DescriptorIndex
) -> OpenedModel:
    """The model that embeds photos as those of a collection were.

    Args:
        settings: the configuration, with the keys `init_from`, `init_step`, `init_raw`,
            `compute_dtype` and `database`.
        index: the collection.

    Raises:
        InputError: no such checkpoint, or one that did not make the collection.
    """
    wanted = settings_of(index)
    made_by = settings
    if not settings["init_from"]:
        made_by = {**settings, **_checkpoint_of(workdir_of(index))}
    opened = open_weights(made_by, pooling_exponent=wanted.pooling_exponent)
    own = settings_of_model(
        opened,
        dtype=wanted.dtype,
        test_size=wanted.sizes,
        test_mode=wanted.test_mode,
    )
    own = own._replace(decoding=wanted.decoding)
    require_same_settings(wanted, own, folder=as_path(settings["database"]))
    return opened.for_inference(settings["engine"])


def _checkpoint_of(database: Path) -> dict[str, Any]:
    """The keys of the config of a database's workdir that name the checkpoint."""
    try:
        made_by = embed_config(database, CHECKPOINT_KEYS)
    except InputError as error:
        raise InputError(
            f"{error}; or name the checkpoint with --config.init_from=DIR"
        ) from error
    if made_by is None:
        raise InputError(
            "init_from: found nothing, and no config.json beside the database "
            f"{database} that names a checkpoint; give it with --config.init_from=DIR"
        )
    print(f"queries are embedded by {made_by['init_from']}, as the database was")
    named = {key: made_by[key] for key in CHECKPOINT_KEYS}
    # Older versions had no running averages, and no key that leaves them.
    return {**named, "init_raw": made_by.get("init_raw", False)}
