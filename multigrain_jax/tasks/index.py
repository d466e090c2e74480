"""Task `index`: an approximate index over a collection of descriptors, for `search`."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from multigrain_jax.descriptors.approximate import faiss_engine, milvus_engine
from multigrain_jax.descriptors.approximate.build import (
    Change,
    begin_record,
    update_index,
)
from multigrain_jax.descriptors.approximate.faiss_engine import FaissOptions
from multigrain_jax.descriptors.approximate.known import known_rows, require_rows
from multigrain_jax.descriptors.approximate.milvus_engine import MilvusOptions
from multigrain_jax.descriptors.approximate.opening import ENGINES, open_engine
from multigrain_jax.descriptors.approximate.record import (
    INDEX_FOLDER,
    RECORD_FILE,
    Record,
    read_record,
    write_record,
)
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.files import settle
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    choice_problems,
    path_problems,
    refuse,
    require_photos,
)
from multigrain_jax.tasks.embed_record import open_collection
from multigrain_jax.tasks.prepare import leave_if_taken, one_writer
from multigrain_jax.workdir import write_config, write_results

KINDS = {"faiss": faiss_engine.KINDS, "milvus": milvus_engine.KINDS}


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Bring the workdir's index up to the collection; returns what results.json holds.

    Raises:
        InputError: no such collection, an index of another one, or an engine that is
            not there.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    index = open_collection(settings)
    require_photos(int(index.live.sum()), "database", config.database)
    folder = workdir / INDEX_FOLDER
    record, is_new = _record(settings, index, folder)
    known_rows(record, index, folder=folder)  # refuses what is of other descriptors
    write_config(workdir, settings)
    folder.mkdir(exist_ok=True)
    engine = open_engine(record, folder)
    try:
        if is_new and engine.in_place:
            # What is dropped now is not to be found missing after a kill.
            write_record(folder, record)
            settle(folder)
        if is_new:
            record = begin_record(
                record,
                index,
                engine,
                train_rows=config.train_rows,
                seed=config.seed,
            )
            leave_if_taken(workdir)
            write_record(folder, record)
        else:
            require_rows(engine, record, folder=folder)
        record, change = update_index(
            folder,
            record,
            index,
            engine,
            rows_per_commit=config.rows_per_commit,
            rows_per_part=config.rows_per_part,
            before_step=functools.partial(leave_if_taken, workdir),
        )
        num_rows, num_bytes = engine.size(record.parts)
    finally:
        engine.close()
    leave_if_taken(workdir)
    results = _results(index, change, num_rows, num_bytes)
    results["seconds"] = time.perf_counter() - started
    print(f"{record.engine}: {record.made['kind']}")
    print("\n".join(f"{name:<15}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    return results


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = [
        *path_problems(settings, ("database",)),
        *choice_problems(settings, {"engine": ENGINES}),
        *number_problems(settings),
    ]
    if settings["engine"] in ENGINES:
        kinds = ("auto", *KINDS[settings["engine"]])
        problems += choice_problems(settings, {"kind": kinds})
    uri = settings["milvus"]["uri"]
    if "@" in uri:
        problems.append(
            "milvus.uri: found an address with a name or password, which config.json "
            "would keep, expected one without; put them into the environment variable "
            f"{milvus_engine.TOKEN_VARIABLE} as NAME:PASSWORD"
        )
    return problems


def _record(
    settings: Mapping[str, Any], index: DescriptorIndex, folder: Path
) -> tuple[Record, bool]:
    """What index.json says, or is to say; whether the index is to be begun."""
    assert index.settings is not None  # it was opened from a folder
    wanted = Record(
        index.settings, settings["engine"], options=_options(settings), made={}
    )
    if settings["rebuild"] or not (folder / RECORD_FILE).exists():
        return wanted, True
    found = read_record(folder)
    differences = [
        f"{name}: the index has {found.options.get(name)}, the configuration {value}"
        for name, value in wanted.options.items()
        if found.options.get(name) != value
    ]
    if found.engine != wanted.engine:
        differences = [f"engine: made by {found.engine}, found {wanted.engine}"]
    if differences:
        raise InputError(
            f"{folder}: an index of other settings; take those, make it anew with "
            "--config.rebuild=True, or choose another --workdir\n  "
            + "\n  ".join(differences)
        )
    return found, not found.made


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine is to make, in index.json."""
    shared = {
        name: settings[name]
        for name in ("kind", "num_lists", "num_links", "ef_construction")
    }
    if settings["engine"] == "faiss":
        options = FaissOptions(
            **shared,
            num_code_bytes=settings["num_code_bytes"],
            seed=settings["seed"],
        )
    else:
        options = MilvusOptions(**shared, **settings["milvus"])
    return options._asdict()


def _results(
    index: DescriptorIndex, change: Change, num_rows: int, num_bytes: int
) -> dict[str, float]:
    return {
        "num_database": int(index.live.sum()),
        "num_rows": num_rows,
        "num_added": change.num_added,
        "num_removed": change.num_removed,
        "bytes": num_bytes,
        "bytes_per_row": num_bytes / max(1, num_rows),
    }
