"""Tables and a plot of the runs of measure/quality.py."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measure.quality_recipes import FAITHFUL
from measure.quality_scores import RESAMPLED, UNSEEN, Resampler, micro_ap
from multigrain_jax.data.edits import EDITS
from multigrain_jax.files import write_atomically

# score -> the head of its column
HEADS = {
    "top1": "top-1",
    "class_map": "class mAP",
    "knn_top1": "kNN top-1",
    "copy_recall_at_1": "copy recall@1",
    "copy_map": "copy mAP",
    "micro_ap": "µAP",
    "micro_ap_seen": "µAP, the other edits",
    "micro_ap_unseen": "µAP, turned or overlaid",
    "micro_ap_normalized": "µAP, normalised",
}
RESAMPLES = 1000

# Of the offsets that are kept, which are the challenge's: twice a similarity. That is
# for whitened descriptors; of these, whose similarities are near 1, an eighth was best
# of 1/8, 1/4, 1/2, 3/4 and 1 on the validation folds, the mean over five recipes.
OFFSET_SHARE = 0.125

Runs = Sequence[Mapping[str, Any]]


def renormalized(run: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A run with the score of normalised similarities by `OFFSET_SHARE`."""
    path = folder / run["outcomes"]
    if not path.is_file():
        return dict(run)
    with np.load(path) as outcomes:
        value = micro_ap(outcomes, tuple(EDITS), share=OFFSET_SHARE)
    return {**run, "scores": {**run["scores"], "micro_ap_normalized": value}}


def by_recipe(runs: Runs) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Recipe -> seed -> its run, in the order in which recipes first occur."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["recipe"], {})[run["seed"]] = run
    return found


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation, with n - 1 below; NaN for that of one."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), sd


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[float, float, int] | None:
    """Mean of `first` - `second` over the seeds of both, its standard error, how many.

    None where no seed is in both.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    mean, sd = mean_and_sd([first[seed] - second[seed] for seed in seeds])
    return mean, sd / len(seeds) ** 0.5, len(seeds)


def tables(runs: Runs, outcomes: Path | None = None) -> str:
    """All tables, in Markdown, in points of a hundred.

    Args:
        runs: the list of finished runs.
        outcomes: the folder of what became of each photo, for the intervals; None
            leaves them out.
    """
    grouped = by_recipe(runs)
    parts = []
    machines = Counter(run.get("machine", "an unknown one") for run in runs)
    if len(machines) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in machines.items())
        parts = [f"Runs of several machines, which round differently: {told}."]
    parts += ["Mean ± standard deviation over the seeds:", _means(grouped)]
    if FAITHFUL in grouped and len(grouped) > 1:
        parts += [
            f"Difference to `{FAITHFUL}` of the same seed, mean ± standard error:",
            _differences(grouped),
        ]
        if outcomes is not None:
            parts += [
                f"Difference to `{FAITHFUL}`, and ratio of µAP: 95 % intervals, seeds "
                f"and photos drawn anew {RESAMPLES} times:",
                _intervals(grouped, outcomes),
            ]
    parts += [
        "Copies of each edit, recall@1 / mAP (* turned or overlaid: the quick start's "
        "own views are neither):",
        _edits(grouped),
    ]
    return "\n\n".join(parts) + "\n"


def _means(grouped: Mapping[str, Mapping[int, Any]]) -> str:
    rows = []
    for recipe, seeds in grouped.items():
        cells = [recipe, str(len(seeds))]
        for score in HEADS:
            mean, sd = mean_and_sd([run["scores"][score] for run in seeds.values()])
            cells.append(_with_error(f"{100 * mean:.1f}", sd))
        rows.append(cells)
    return markdown(["recipe", "runs", *HEADS.values()], rows)


def _differences(grouped: Mapping[str, Mapping[int, Any]]) -> str:
    rows = []
    for recipe in grouped:
        cells = [recipe]
        for score in HEADS:
            each = [
                {seed: run["scores"][score] for seed, run in grouped[name].items()}
                for name in (recipe, FAITHFUL)
            ]
            found = paired_difference(*each)
            cells.append(
                "" if found is None else _with_error(f"{100 * found[0]:+.1f}", found[1])
            )
        if recipe != FAITHFUL:
            rows.append(cells)
    return markdown(["recipe", *HEADS.values()], rows)


def _with_error(mean: str, error: float) -> str:
    """`mean ± error` in points; of a single run nobody knows the error."""
    return mean if np.isnan(error) else f"{mean} ± {100 * error:.1f}"


def _edits(grouped: Mapping[str, Mapping[int, Any]]) -> str:
    rows = []
    for recipe, seeds in grouped.items():
        cells = [recipe]
        for edit in EDITS:
            each = [
                np.mean([run["scores"][f"{edit}/{score}"] for run in seeds.values()])
                for score in ("recall_at_1", "map")
            ]
            cells.append(f"{100 * each[0]:.1f} / {100 * each[1]:.1f}")
        rows.append(cells)
    heads = [f"{edit}{'*' if edit in UNSEEN else ''}" for edit in EDITS]
    return markdown(["recipe", *heads], rows)


def _intervals(grouped: Mapping[str, Mapping[int, Any]], folder: Path) -> str:
    rows = []
    for recipe in grouped:
        if recipe == FAITHFUL:
            continue
        found = intervals(grouped[recipe], grouped[FAITHFUL], folder)
        ends = [[100 * end for end in found[score]] for score in RESAMPLED]
        cells = [f"{low:+.1f} … {high:+.1f}" for low, high in ends]
        rows.append([recipe, *cells, "{:.2f} … {:.2f}".format(*found["ratio"])])
    heads = [HEADS[score] for score in RESAMPLED]
    return markdown(["recipe", *heads, "µAP, times"], rows)


def intervals(
    first: Mapping[int, Any],
    second: Mapping[int, Any],
    folder: Path,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the differences between two recipes, and of the ratio of µAP.

    In each resample the seeds of both recipes are drawn with replacement, and so are
    the photos of each held-out part, the same for both recipes and all seeds; those of
    an image's copies are drawn with it. The database stays what it is.

    Args:
        first: seed -> run.
        second: likewise, of the recipe that is compared with.
        folder: of their outcomes.
        resamples: how many.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        nothing = (float("nan"), float("nan"))
        return dict.fromkeys((*RESAMPLED, "ratio"), nothing)
    loaded = {
        seed: [_load(folder / run[seed]["outcomes"]) for run in (first, second)]
        for seed in seeds
    }
    folds = {seed: first[seed]["fold"] for seed in seeds}
    sizes = {folds[seed]: first[seed]["num_scored"] for seed in seeds}
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in (*RESAMPLED, "ratio")}
    for _ in range(resamples):
        weights = {
            fold: rng.multinomial(size, np.full(size, 1 / size))
            for fold, size in sizes.items()
        }
        chosen, times = np.unique(rng.choice(seeds, len(seeds)), return_counts=True)
        each = [
            [run.scores(weights[folds[int(seed)]]) for run in loaded[int(seed)]]
            for seed in chosen
        ]
        means = [
            {
                score: float(
                    np.average([pair[k][score] for pair in each], weights=times)
                )
                for score in RESAMPLED
            }
            for k in (0, 1)
        ]
        for score in RESAMPLED:
            drawn[score].append(means[0][score] - means[1][score])
        drawn["ratio"].append(means[0]["micro_ap"] / means[1]["micro_ap"])
    ends = {name: np.quantile(values, (0.025, 0.975)) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _load(path: Path) -> Resampler:
    with np.load(path) as file:
        return Resampler(dict(file))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_plot(path: Path, runs: Runs) -> None:
    """Every run as a dot, and mean ± standard deviation: a panel for each score."""
    from matplotlib.figure import Figure

    grouped = by_recipe(runs)
    names, scores = list(grouped), list(HEADS)[:6]
    figure = Figure(figsize=(15, 1.6 + 0.28 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for panel, score in zip(panels, scores, strict=True):
        for row, name in enumerate(names):
            values = [100 * run["scores"][score] for run in grouped[name].values()]
            mean, sd = mean_and_sd(values)
            bar = None if np.isnan(sd) else sd
            panel.plot(values, [row] * len(values), ".", color="#9aa5b1", zorder=1)
            panel.errorbar(mean, row, xerr=bar, fmt="o", color="#0b63ce", capsize=3)
            if name == FAITHFUL:
                panel.axvline(mean, color="#1f2933", linewidth=0.8, linestyle=":")
        panel.set_title(HEADS[score])
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=110)
