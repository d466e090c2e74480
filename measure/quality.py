"""What recipes are worth on the quick start's photos, with their uncertainty.

    python measure/quality.py --processes 2
    python measure/quality.py --recipes faithful,lambda_1,p_1 --seeds 8
    python measure/quality.py --setting quickstart --on test --final \
        --recipes faithful,copies_all

Every recipe of measure/quality_recipes.py is trained with every seed, and scored:
top-1, mAP of the class, the class of the nearest photo; copies by six edits, as the
recall of their originals and as the micro average precision (µAP) of a benchmark with
distractors and with copies of photos that are not there. Printed are means and standard
deviations, paired differences to the quick start's own recipe, and bootstrap intervals.

Settings are chosen on the training photos: each seed holds another fold of them out.
The test photos are for the end, once: --on test asks for --final. A run that is
finished is a line of runs.jsonl below --out, and the same command goes on from there.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from measure.arguments import at_least, positive
from measure.quality_photos import (
    ORIGINALS,
    QUICKSTART,
    TEST,
    TRAIN,
    Photos,
    assign_folds,
    network_inputs_of,
    store_photos,
)
from measure.quality_recipes import RECIPES, SETTINGS, Setting, recipe_config
from measure.quality_run import Job, run_job
from measure.quality_table import renormalized, tables, write_plot
from multigrain_jax.data.edits import EDITS
from multigrain_jax.errors import InputError
from multigrain_jax.files import append_durably
from multigrain_jax.terminal import outlive_readers

VALIDATION = "validation"
RUNS_FILE = "runs.jsonl"
# Several processes share one accelerator, and each takes what it needs.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit code.

    0 for done, 1 where a run failed, 2 for what cannot be done.
    """
    options = parse(arguments)
    started = time.monotonic()
    os.environ.update({k: os.environ.get(k, v) for k, v in SHARED.items()})
    try:
        jobs = list(plan(options))
        folder, done = jobs[0].folder, finished(jobs)
        missing = [job for job in jobs if job.name not in done]
        print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them finished before")
        failed = 0
        if missing and options.processes:
            deadline = started + options.deadline if options.deadline else None
            failed = work(missing, processes=options.processes, deadline=deadline)
        outcomes = folder / "outcomes"
        runs = [renormalized(run, outcomes) for run in finished(jobs).values()]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if runs:
        text = tables(runs, None if options.no_intervals else outcomes)
        (folder / "tables.md").write_text(text, encoding="utf-8")
        write_plot(folder / "scores.png", runs)
        print(f"\n{text}\n{folder}: {RUNS_FILE}, tables.md, scores.png")
    return 1 if failed else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, as they are allowed together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", default=QUICKSTART, help="or a folder of parts")
    parser.add_argument("--setting", default="96px", choices=SETTINGS)
    parser.add_argument("--on", default=VALIDATION, choices=(VALIDATION, TEST))
    parser.add_argument("--final", action="store_true", help="read the test photos")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="comma between")
    parser.add_argument("--seeds", type=at_least(1), default=5)
    parser.add_argument("--folds", type=at_least(2), default=5)
    parser.add_argument(
        "--processes", type=at_least(0), default=1, help="0: the tables only"
    )
    parser.add_argument(
        "--deadline", type=positive, help="no run starts after so many s"
    )
    parser.add_argument("--steps", type=at_least(1), help="a trial of so many steps")
    parser.add_argument("--no-intervals", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("workdirs/quality"))
    options = parser.parse_args(arguments)
    if options.on == TEST and not options.final:
        parser.error("--on test reads the test photos: choose first, then add --final")
    options.recipes = list(dict.fromkeys(options.recipes.split(",")))
    if unknown := [name for name in options.recipes if name not in RECIPES]:
        parser.error(f"--recipes: {unknown} are not among {', '.join(RECIPES)}")
    return options


def plan(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, those of the first seed first; recipes that cannot be are said so."""
    setting, out = SETTINGS[options.setting], options.out.absolute()
    name = (
        "quickstart"
        if options.photos == QUICKSTART
        else Path(os.path.abspath(options.photos)).name
    )
    size = "files" if setting.side is None else f"{setting.side}px"
    photos = store_photos(
        options.photos, out / f"photos-{name}-{size}", side=setting.side
    )
    everything = np.arange(len(photos.names[TRAIN]))
    folds = parted(photos, options.folds)
    recipes = usable(options.recipes, setting, photos)
    trial = "" if options.steps is None else f"-{options.steps}steps"
    folder = out / f"{name}-{options.setting}-{options.on}{trial}"
    for seed in range(options.seeds):
        fold = None if options.on == TEST else seed % options.folds
        for recipe in recipes:
            yield Job(
                recipe=recipe,
                changes=RECIPES[recipe],
                setting=setting,
                seed=seed,
                photos=photos,
                fold=fold,
                trained_on=everything[folds != fold],
                scored=(
                    np.arange(len(photos.names[TEST]))
                    if fold is None
                    else everything[folds == fold]
                ),
                steps=options.steps,
                folder=folder,
            )


def parted(photos: Photos, num_folds: int) -> np.ndarray:
    """The fold of each training photo.

    Raises:
        InputError: an empty fold, or one without which a class is not there.
    """
    labels = np.array(photos.labels[TRAIN])
    folds = assign_folds(labels, np.array(photos.groups), num_folds)
    if empty := num_folds - len(np.unique(folds)):
        raise InputError(
            f"--folds: found {num_folds}, of which {empty} would have no photo, "
            "expected fewer than the photos of a class; lower it"
        )
    for label, name in enumerate(photos.class_names):
        if len(np.unique(folds[labels == label])) < 2:
            raise InputError(
                f"class {name!r}: all its photos are in one fold, and training without "
                "it would know nothing of them; leave the class out"
            )
    return folds


def usable(recipes: list[str], setting: Setting, photos: Photos) -> list[str]:
    """The recipes that this version knows; the others are said so.

    Raises:
        InputError: it knows none of them.
    """
    known = []
    for recipe in recipes:
        try:
            recipe_config(
                RECIPES[recipe],
                setting,
                num_images=len(photos.names[TRAIN]),
                num_classes=len(photos.class_names),
                seed=0,
                steps=None,
            )
            known.append(recipe)
        except InputError as error:
            print(f"{recipe} is passed over: {str(error).strip()}")
    if not known:
        raise InputError("none of the recipes can be run by this version")
    return known


def finished(jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """The lines of the jobs that are finished, by the jobs' names."""
    lines = finished_runs(jobs[0].folder / RUNS_FILE)
    found = {}
    for job in jobs:
        wanted = job.made_of.items()
        of_job = [line for line in lines if wanted <= line.items()]
        if of_job:
            found[job.name] = of_job[-1]
    return found


def finished_runs(path: Path) -> list[dict[str, Any]]:
    """The lines of a list of runs; those that a kill has cut off are left out."""
    runs = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                runs.append(json.loads(line))
    return runs


def work(jobs: list[Job], *, processes: int, deadline: float | None) -> int:
    """Run the jobs, several at once, each in a process that is kept for the next.

    Args:
        jobs: those that are missing.
        processes: how many at once.
        deadline: as `time.monotonic` counts; no run starts after it.

    Returns:
        How many failed; the others run all the same.
    """
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        prepare_inputs(pool, jobs[0].photos, jobs)
        waiting, running = list(jobs), dict[Future[dict[str, Any]], Job]()
        while waiting or running:
            while waiting and len(running) < processes:
                if deadline is not None and time.monotonic() > deadline:
                    print(f"{len(waiting)} runs are left to another time")
                    waiting.clear()
                    break
                job = waiting.pop(0)
                running[pool.submit(run_job, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                failed += not record(running.pop(future), future)
    return failed


def prepare_inputs(pool: ProcessPoolExecutor, photos: Photos, jobs: list[Job]) -> None:
    """Make what the networks will see of photos and copies, once for all runs."""
    job = jobs[0]
    split = TEST if job.fold is None else TRAIN
    config = recipe_config(
        job.changes,
        job.setting,
        num_images=len(photos.names[TRAIN]),
        num_classes=len(photos.class_names),
        seed=0,
        steps=None,
    )
    wanted = {(split, edit) for edit in (ORIGINALS, *EDITS)} | {(TRAIN, ORIGINALS)}
    folder = photos.root / "inputs"
    made = [
        pool.submit(make_inputs, photos, part, edit, config.test_size, folder)
        for part, edit in sorted(wanted)
    ]
    for future in made:
        future.result()


def make_inputs(
    photos: Photos, split: str, edit: str, test_size: int, folder: Path
) -> None:
    """Make what the networks will see of one edit, in another process."""
    network_inputs_of(photos, split, edit, test_size=test_size, folder=folder)


def record(job: Job, future: Future[dict[str, Any]]) -> bool:
    """Write the line of a finished run, and print a shorter one; False if it failed."""
    try:
        run = future.result()
    except Exception as error:
        print(f"{job.name} FAILED: {type(error).__name__}: {error}", flush=True)
        return False
    path = job.folder / RUNS_FILE
    cut_off = path.is_file() and not path.read_bytes().endswith(b"\n")
    line = ("\n" if cut_off else "") + json.dumps(run) + "\n"
    append_durably(path, line.encode())
    scores = run["scores"]
    shown = [f"{n} {scores[n]:.3f}" for n in ("top1", "class_map", "micro_ap")]
    print(f"{job.name}: {', '.join(shown)}, {run['seconds']:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
