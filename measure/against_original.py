"""Ours beside the original's own code: both trained alike, scored alike, compared.

    python measure/against_original.py CLONE PHOTOS --torchvision FOLDER --seeds 8
    python measure/against_original.py CLONE PHOTOS --processes 0

CLONE is a clone of the original, facebookresearch/multigrain on GitHub, which is under
CC BY-NC 4.0 and no part of this repository; it is run, by measure/original_runner.py,
and not changed. It needs PyTorch (`pip install -e '.[convert]'`), and torchvision of
its time in a folder of its own:

    python -m pip install --no-deps --target FOLDER torchvision==0.2.2.post3

PHOTOS has the folders train/CLASS and val/CLASS (or test/CLASS): the photos that
measure/quality.py stores, for one. Both sides train ResNet-18 from scratch on crops of
48 pixels: p = 3, three augmentations per photo, λ = 0.5, "full" colours, the original's
negatives, its schedule shortened. The original's checkpoint is converted, and both are
scored by the package's evaluation. Printed are mean ± standard deviation of each score
over the seeds, and Welch's t of the difference, with p of a larger one by chance.

A run that is finished is a line of runs.jsonl below --out, and the same command goes on
from there. A run takes about three minutes on two idle cores.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure.against_runs import (
    METRICS,
    ORIGINAL,
    OURS,
    SIDES,
    Job,
    Settings,
    run_job,
    threads_each,
)
from measure.arguments import at_least, positive
from measure.quality import RUNS_FILE, SHARED, finished_runs
from measure.quality_photos import TEST, TRAIN, Photos
from measure.quality_table import markdown, mean_and_sd
from multigrain_jax.data.sources.folder import index_folder
from multigrain_jax.data.sources.scan import DEFAULT_EXCLUDE, Sieve
from multigrain_jax.errors import InputError
from multigrain_jax.files import append_durably
from multigrain_jax.terminal import outlive_readers

RESNETS = ("resnet18", "resnet50", "resnet101", "resnet152")
NEEDED = ("torch", "yaml", "matplotlib")
TORCHVISION = "torchvision==0.2.2.post3"


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and print; returns the exit code.

    0 for done, 1 where a run failed, 2 for what cannot be done.
    """
    options = parse(arguments)
    os.environ.update({k: os.environ.get(k, v) for k, v in SHARED.items()})
    try:
        jobs = plan(options)
        done = finished(jobs)
        missing = [job for job in jobs if job.name not in done]
        print(f"{len(jobs)} runs, {len(done)} of them finished before", flush=True)
        failed = 0
        if missing and options.processes:
            check_original(options.clone, options.torchvision)
            failed = work(missing, processes=options.processes)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(list(finished(jobs).values()))}")
    return 1 if failed else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path, help="of the original")
    parser.add_argument("photos", type=Path, help="a folder of train/ and val/")
    parser.add_argument(
        "--torchvision", type=Path, help=f"the folder that holds {TORCHVISION}"
    )
    parser.add_argument("--seeds", type=at_least(1), default=8)
    parser.add_argument(
        "--processes", type=at_least(0), default=1, help="0: the table only"
    )
    parser.add_argument("--backbone", default=RESNETS[0], choices=RESNETS)
    parser.add_argument(
        "--size", type=at_least(1), default=48, help="of crops, in pixels"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=48)
    parser.add_argument("--steps-per-epoch", type=at_least(1), default=28)
    parser.add_argument("--epochs", type=at_least(1), default=22)
    parser.add_argument("--learning-rate", type=positive, default=0.02)
    parser.add_argument(
        "--threads",
        type=at_least(1),
        help="of the original's training; as many as cores",
    )
    parser.add_argument("--out", type=Path, default=Path("workdirs/against_original"))
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> list[Job]:
    """All runs, both sides of a seed one after the other.

    Raises:
        InputError: photos that cannot do.
    """
    settings = Settings(
        backbone=options.backbone,
        train_size=options.size,
        # As the quick start: a crop enlarges what it shows.
        test_size=round(options.size * 7 / 6),
        batch_size=options.batch_size,
        steps_per_epoch=options.steps_per_epoch,
        num_epochs=options.epochs,
        learning_rate=options.learning_rate,
    )
    photos = list_photos(options.photos)
    return [
        Job(
            side=side,
            seed=seed,
            settings=settings,
            photos=photos,
            clone=options.clone,
            torchvision=options.torchvision or Path(),
            threads=options.threads or threads_each(options.processes),
            folder=options.out.absolute(),
        )
        for seed in range(options.seeds)
        for side in SIDES
    ]


def list_photos(root: Path) -> Photos:
    """The photos of both parts, in the order of classes and names.

    Raises:
        InputError: a part is missing, or has other classes, or photos of none.
    """
    parts = {TRAIN: root / "train", TEST: root / "val"}
    if not parts[TEST].is_dir() and (root / "test").is_dir():
        parts[TEST] = root / "test"
    names, labels, classes = {}, {}, {}
    for split, folder in parts.items():
        if not folder.is_dir():
            raise InputError(
                f"{root}: found no folder {folder.name}, expected train/CLASS and "
                "val/CLASS; give the folder above them"
            )
        sieve = Sieve(DEFAULT_EXCLUDE, "refuse")
        listed, classes[split] = index_folder(
            folder, split=None, sieve=sieve, instances=None
        )
        listed.sort(key=lambda file: (file.label, file.path))
        names[split] = [str(Path(file.path).relative_to(root)) for file in listed]
        labels[split] = [file.label for file in listed]
        if min(labels[split]) < 0:
            raise InputError(
                f"{folder}: found photos beside the folders of classes, such as "
                f"{listed[0].path}; expected folders only, move them into one"
            )
    if classes[TRAIN] != classes[TEST]:
        raise InputError(
            f"{root}: {parts[TRAIN].name} and {parts[TEST].name} have other classes: "
            f"{sorted(set(classes[TRAIN]) ^ set(classes[TEST]))}; expected the same"
        )
    return Photos(
        root=root.absolute(),
        names=names,
        labels=labels,
        groups=[],
        class_names=classes[TRAIN],
        pixels="plain",
    )


def check_original(clone: Path, torchvision: Path | None) -> None:
    """Refuse before any run what the original could not be run with.

    Raises:
        InputError: no clone, no torchvision of its time, or a package is missing.
    """
    problems = []
    for needed in ("scripts/train.py", "multigrain/lib", "multigrain/modules"):
        if not (clone / needed).exists():
            problems.append(
                f"CLONE {clone}: found no {needed}, expected a clone of the original; "
                "git clone https://github.com/facebookresearch/multigrain"
            )
            break
    install = f"python -m pip install --no-deps --target FOLDER {TORCHVISION}"
    if torchvision is None:
        problems.append(f"--torchvision: found nothing, expected a folder; {install}")
    elif not (torchvision / "torchvision").is_dir() or not list(
        torchvision.glob("torchvision-0.2.2*")
    ):
        problems.append(
            f"--torchvision {torchvision}: found no torchvision 0.2.2 in it, expected "
            f"the folder of; {install}"
        )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(
            f"{', '.join(missing)}: not installed, and the original needs it; "
            "pip install -e '.[convert]' pyyaml"
        )
    if problems:
        raise InputError("\n".join(problems))


def finished(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """The lines of the jobs that are finished, by the jobs' names."""
    lines = finished_runs(jobs[0].folder / RUNS_FILE)
    found = {}
    for job in jobs:
        of_job = [line for line in lines if job.made_of.items() <= line.items()]
        if of_job:
            found[job.name] = of_job[-1]
    return found


def work(jobs: Sequence[Job], *, processes: int) -> int:
    """Run the jobs, so many at once; returns how many failed."""
    jobs[0].folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {pool.submit(run_job, job): job for job in jobs}
        return sum(not record(running[each], each) for each in as_completed(running))


def record(job: Job, future: Future[dict[str, Any]]) -> bool:
    """Write the line of a finished run, and print a shorter one; False if it failed."""
    try:
        run = future.result()
    except Exception as error:
        print(f"{job.name} FAILED: {type(error).__name__}: {error}", flush=True)
        return False
    path = job.folder / RUNS_FILE
    cut_off = path.is_file() and not path.read_bytes().endswith(b"\n")
    append_durably(path, (("\n" if cut_off else "") + json.dumps(run) + "\n").encode())
    shown = [f"{name} {run['scores'][name]:.3f}" for name in ("top1", "class_map")]
    print(f"{job.name}: {', '.join(shown)}, {run['seconds']:.0f} s", flush=True)
    return True


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """For each score mean ± standard deviation of both sides, Welch's t and p."""
    sides = {side: [run for run in runs if run["side"] == side] for side in SIDES}
    rows = []
    for name, head in METRICS.items():
        values = {
            side: [run["scores"][name] for run in found]
            for side, found in sides.items()
        }
        cells = [head, *(mean_with_sd(values[side]) for side in (OURS, ORIGINAL))]
        t, p = welch(values[OURS], values[ORIGINAL])
        rows.append([*cells, *("–" if x is None else f"{x:.2f}" for x in (t, p))])
    heads = [f"{side}, {len(sides[side])} runs" for side in (OURS, ORIGINAL)]
    return markdown(["score", *heads, "t", "p"], rows)


def mean_with_sd(values: Sequence[float]) -> str:
    """`mean ± standard deviation`; of one value nobody knows the latter."""
    if not values:
        return "–"
    mean, sd = mean_and_sd(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {sd:.3f}"


def welch(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float] | tuple[None, None]:
    """Welch's t of the difference of two means, and p, two-sided.

    t = (x̄ − ȳ) / sqrt(s²ₓ/n + s²ᵧ/m); p by Student's distribution with the degrees of
    freedom of Welch and Satterthwaite. None of fewer than two values a side, or where
    none differ.
    """
    from scipy.stats import t as student

    if min(len(first), len(second)) < 2:
        return None, None
    parts = [
        (mean, sd**2 / len(values))
        for values in (first, second)
        for mean, sd in [mean_and_sd(values)]
    ]
    (mean, error), (other_mean, other_error) = parts
    total = error + other_error
    if total == 0:
        return None, None
    freedom = total**2 / (
        error**2 / (len(first) - 1) + other_error**2 / (len(second) - 1)
    )
    value = (mean - other_mean) / total**0.5
    return value, 2 * float(student.sf(abs(value), freedom))


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
