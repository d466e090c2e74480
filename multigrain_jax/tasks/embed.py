"""Task `embed`: the descriptors of one's own images, in a folder to be searched."""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import absolute_path, as_path
from multigrain_jax.data.eval_batches import EvalPlan, without_first
from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.data.sources.open import PACKED, DataSet, open_split
from multigrain_jax.data.sources.packed import photos_of
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.descriptors.describe import (
    embed_plan,
    plan_descriptors,
    settings_of_model,
    stamp_images,
)
from multigrain_jax.descriptors.folder import (
    DESCRIPTOR_FOLDER,
    DTYPES,
    HEAD_FILE,
    OK,
    OUTDATED,
    DescriptorSettings,
    ImageStamp,
    differences,
    read_head,
)
from multigrain_jax.descriptors.roots import is_below
from multigrain_jax.descriptors.writer import DescriptorWriter
from multigrain_jax.distributed import (
    agree,
    agree_on_matrix,
    all_done,
    own_folder,
    quiet_unless_first,
    start_hosts,
)
from multigrain_jax.errors import InputError, TakenOver, printable
from multigrain_jax.evaluation.sharing import require_same_images
from multigrain_jax.lock import WorkdirLock, lock_workdir
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.runtime import look_for_devices
from multigrain_jax.tasks.check import (
    as_tuple,
    choice_problems,
    evaluation_problems,
    refuse,
    size_problems,
)
from multigrain_jax.tasks.embed_defaults import (
    AUTO,
    exponent_asked,
    settle,
    size_hint,
    with_a_mode,
)
from multigrain_jax.tasks.embed_record import SOURCES_OF_FILES, embed_config
from multigrain_jax.tasks.inputs import data_set_from_config, reading_from_config
from multigrain_jax.tasks.photos import recorded_settings
from multigrain_jax.tasks.prepare import prepare
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.weights import find_weights
from multigrain_jax.workdir import write_config, write_results


def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Embed as the config says, into `workdir/descriptors`; returns results.json.

    Only images that are new or have changed since the last run are embedded; a run
    that was killed goes on where it was. The results: `num_images` (with a descriptor,
    from all runs), `num_unreadable`, `num_outdated` (lines of images that are gone or
    have changed), `num_new` in this run, `images_per_second` and `seconds`. Of several
    hosts, process 0 alone writes descriptors and has results.

    Raises:
        InputError: a config, checkpoint or data that cannot work, or descriptors in
            the workdir that were made otherwise.
    """
    started = time.perf_counter()
    config = prepare(config, workdir)
    start_hosts(**config.distributed.to_dict())
    look_for_devices()
    with quiet_unless_first():
        settings = config.to_dict()
        refuse(_problems(settings))
        data = settings["data"]
        # The index and config.json keep the paths: they must not depend on where this
        # was started.
        path = find_weights(settings["init_from"])
        settings["init_from"] = absolute_path(path)
        if data["root"] is not None:
            data["root"] = absolute_path(data["root"])
        opened = open_weights(
            settings, pooling_exponent=exponent_asked(settings["pooling_exponent"])
        )
        opened = settle(settings, opened, workdir)
        opened = opened.for_inference(settings["engine"])
        sizes = as_tuple(settings["test_size"])
        print(size_hint(opened.checkpoint.meta, max(sizes)), end="")
        of_model = settings_of_model(
            opened,
            dtype=config.descriptor_dtype,
            test_size=sizes,
            test_mode=settings["test_mode"],
        )
        workdir, data_set, wanted = place_for(workdir, of_model, settings)
        with lock_workdir(own_folder(workdir)) as lock, all_done():
            source = open_split(data_set, data["split"])
            require_same_images(source)
            return _run(opened, source, wanted, settings, workdir, lock, started)


def place_for(
    workdir: Path, of_model: DescriptorSettings, settings: Mapping[str, Any]
) -> tuple[Path, DataSet, DescriptorSettings]:
    """Where descriptors go, which photos they are of, and how they are made.

    That is the workdir itself, or a folder in it where the workdir has descriptors that
    were made otherwise.

    Args:
        workdir: as it was asked for.
        of_model: how the descriptors are to be made, but for the pixels of photos: a
            collection older than their record stays comparable with itself.
        settings: the configuration.
    """
    name = f"{of_model.backbone}-{of_model.test_size}-{of_model.model_digest[:8]}"
    names = itertools.chain(["", name], (f"{name}-{n}" for n in itertools.count(2)))
    of_workdir: list[str] = []  # what differs there
    for number, candidate in enumerate(names):
        folder = workdir / candidate / DESCRIPTOR_FOLDER
        before = read_head(folder).settings if (folder / HEAD_FILE).exists() else None
        data_set = _data_set(settings, before)
        wanted = recorded_settings(of_model, data_set.decoding, before=before)
        # Of several hosts, the first one decides.
        if agree(int(before in (None, wanted))):
            if number:
                keys = ", ".join(line.partition(":")[0] for line in of_workdir)
                print(
                    f"{workdir} has descriptors that were made otherwise: these go to "
                    f"{folder.parent}" + (f" (what differs: {keys})" if keys else "")
                )
            if before is not None and before.decoding is None:
                print(
                    "the descriptors in the workdir are older than data.decoding: "
                    f"photos are decoded as {data_set.decoding.pixels!r} has it"
                )
            return folder.parent, data_set, wanted
        if not number and before is not None:
            of_workdir = differences(before, wanted)
    raise AssertionError("names have no end")


def _data_set(
    settings: Mapping[str, Any], before: DescriptorSettings | None
) -> DataSet:
    """The photos; a folder that cannot be listed among theirs is passed over."""
    data_set = dataclasses.replace(
        data_set_from_config(settings), unreadable_folders="skip"
    )
    if before is None:
        return data_set
    decoding = data_set.decoding
    if settings["data"]["decode"] == AUTO:
        # As they were made: there is nothing that says so of exact ones.
        decoding = dataclasses.replace(decoding, fast=before.decode == "fast")
    if before.decoding is None and settings["data"]["decoding"] == AUTO:
        pixels = "upright" if data_set.source == "folder" else "plain"
        decoding = dataclasses.replace(decoding, pixels=pixels)
    return dataclasses.replace(data_set, decoding=decoding)


def _run(
    opened: OpenedModel,
    source: ImageSource,
    descriptor_settings: DescriptorSettings,
    settings: Mapping[str, Any],
    workdir: Path,
    lock: WorkdirLock,
    started: float,
) -> dict[str, float]:
    earlier_root = _earlier_root(workdir)
    writer = None
    if jax.process_index() == 0:
        writer = DescriptorWriter(
            workdir / DESCRIPTOR_FOLDER,
            descriptor_settings,
            rows_per_shard=settings["rows_per_shard"],
            check_digests=settings["verify"],
        )
    write_config(own_folder(workdir), settings)

    embedding_since = time.perf_counter()
    stamps, plan = _plan(writer, source, descriptor_settings, settings, earlier_root)
    num_new = int(np.sum(plan.rows >= 0))
    print(
        f"{opened.name} from {opened.checkpoint.path}: {len(stamps)} images, "
        f"{num_new} of them new or changed" + (f"; {plan}" if num_new else ""),
        flush=True,
    )
    sizes = descriptor_settings.sizes
    _embed(writer, opened, source, stamps, plan, sizes, settings, workdir, lock)
    seconds = time.perf_counter() - embedding_since
    if writer is None:
        return {}
    statuses = [row.status for row in writer.rows]
    num_outdated = sum(status in OUTDATED for status in statuses)
    results = {
        "num_images": statuses.count(OK),
        "num_unreadable": len(statuses) - statuses.count(OK) - num_outdated,
        "num_outdated": num_outdated,
        "num_new": num_new,
        "images_per_second": num_new / seconds,
        "seconds": time.perf_counter() - started,
    }
    print("\n".join(f"{name:<17}  {value:g}" for name, value in results.items()))
    write_results(workdir, results)
    if not results["num_images"]:
        raise InputError(
            f"nothing was embedded: none of the {len(source)} images could be read, "
            f"among them {printable(source.describe(0))}; skipped.txt says why"
        )
    return results


def _embed(
    writer: DescriptorWriter | None,
    opened: OpenedModel,
    source: ImageSource,
    stamps: Sequence[ImageStamp],
    plan: EvalPlan,
    sizes: Sequence[int],
    config: Mapping[str, Any],
    workdir: Path,
    lock: WorkdirLock,
) -> None:
    """Embed what the folder does not have.

    Every host computes; the writer is that of process 0.
    """
    reading = reading_from_config(config)
    for batch in embed_plan(
        opened, source, plan, sizes=sizes, reading=reading, workdir=workdir
    ):
        if writer is None:
            continue
        if not lock.is_own():
            raise TakenOver(
                f"{workdir} is now in use by {lock.holder()}; what is in it is whole: "
                "the same command goes on from there once that run is over"
            )
        statuses = [
            (why_unreadable(source, int(index)) or "could be read later on")
            if bad
            else OK
            for index, bad in zip(batch.indices, batch.bad, strict=True)
        ]
        images = [stamps[index] for index in batch.indices]
        writer.add(images, batch.descriptors, statuses)
    if writer is not None:
        writer.finish()


def _plan(
    writer: DescriptorWriter | None,
    source: ImageSource,
    descriptor_settings: DescriptorSettings,
    config: Mapping[str, Any],
    earlier_root: str | None,
) -> tuple[list[ImageStamp], EvalPlan]:
    """All images, and the batches of this run, without those that are on disk."""
    plans: list[EvalPlan] = []

    def order(indices: np.ndarray) -> np.ndarray:
        plan = plan_descriptors(
            source,
            descriptor_settings,
            batch_size=config["batch_size"],
            timeout_s=config["data_timeout_s"],
            indices=indices,
        )
        plans.append(plan)
        return plan.rows[plan.rows >= 0]

    stamps, num_stored = [], 0
    if writer is None:
        order(np.zeros(0, np.int64))
    else:
        stamps = stamp_images(source)
        _, num_stored = writer.begin(
            stamps,
            order,
            is_scanned=_scanned(config["data"]),
            is_readable=lambda index: why_unreadable(source, index) is None,
            new_root=config["data"]["root"],
            earlier_root=earlier_root,
        )
    plan = without_first(plans[-1], num_stored)
    return stamps, dataclasses.replace(
        plan, rows=agree_on_matrix(plan.rows), shapes=agree_on_matrix(plan.shapes)
    )


def _scanned(data: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether an image of some path would be found by these settings of `data`."""
    root, split = data["root"], data["split"]
    if root is None:
        return lambda path: not os.path.isabs(path)
    if data["source"] in SOURCES_OF_FILES:
        if split and as_path(f"{root}/{split}").is_dir():
            root = f"{root}/{split}"
        return lambda path: is_below(path, root)
    if (form := PACKED.get(data["source"])) is not None:
        return photos_of(root, split, form=form, exclude=data["exclude"])
    # Their names are the folder, or a file in it, and a number.
    return lambda path: is_below(path, root) or path.startswith(f"{root} ")


def _earlier_root(workdir: Path) -> str | None:
    """The folder of the run before, of which descriptors of version 1 know nothing."""
    with contextlib.suppress(InputError):
        config = embed_config(workdir, {"data.root": (str, NoneType)})
        return None if config is None else config["data"]["root"]
    return None


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = evaluation_problems(
        with_a_mode(settings), num_devices=jax.device_count()
    )
    problems += choice_problems(settings, {"descriptor_dtype": DTYPES})
    if len(as_tuple(settings["pooling_exponent"])) > 1:
        problems.append("pooling_exponent: found several, expected one")
    return problems + size_problems(settings)
