"""Task `whiten`: a PCA whitening, fitted to images and folded into the classifier."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from multigrain_jax.checkpoint import require_no_checkpoints
from multigrain_jax.data.reading import HostBatch
from multigrain_jax.data.sources.open import open_split
from multigrain_jax.distributed import gather_shares, own_folder, sum_over_hosts
from multigrain_jax.errors import InputError
from multigrain_jax.evaluation.embed import embed_batches, make_embed_step
from multigrain_jax.evaluation.inputs import features_of_uint8, network_inputs
from multigrain_jax.mesh import make_mesh, make_own_mesh, put_batch, put_replicated
from multigrain_jax.models.multigrain import class_logits, merge_model
from multigrain_jax.opened_model import OpenedModel, open_checkpoint
from multigrain_jax.ops.pooling import NORM_EPSILON, whitening_input
from multigrain_jax.ops.whitening import (
    Moments,
    PcaWhitening,
    add_to_moments,
    empty_moments,
    fit_pca_whitening,
    fold_into_classifier,
    pass_channel_through,
    scatter_around,
)
from multigrain_jax.pages.plots import draw_curves, save_plot
from multigrain_jax.runtime import compute_dtype
from multigrain_jax.tasks.check import (
    as_tuple,
    evaluation_problems,
    pooling_exponents,
    refuse,
)
from multigrain_jax.tasks.final_report import evaluate_and_report
from multigrain_jax.tasks.inputs import (
    data_set_from_config,
    plan_from_config,
    readable_batches,
    reading_from_config,
)
from multigrain_jax.tasks.prepare import one_writer, save_model
from multigrain_jax.tasks.weights import open_weights
from multigrain_jax.workdir import print_table, write_config, write_results

# Of the largest logit: what folding in float32 may cost.
FOLDING_TOLERANCE = 1e-3
TOP_K = 5
# So many images, if there are as many, the folded classifier is tried on.
VERIFIED_IMAGES = 32


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Whiten as the config says; returns what results.json holds.

    Of several hosts each reads its share of the images, and process 0 saves and has
    results.
    `num_images`, `num_skipped`, `num_components`, the largest, mean and smallest
    eigenvalue, `folding_error` where the classifier was folded, and with a
    `report_split` the scores `before/…` and `after/…`.

    Raises:
        InputError: a config, checkpoint or data that cannot work; too few images, or
            directions without variance.
    """
    started = time.perf_counter()
    settings = config.to_dict()
    refuse(_problems(settings))
    require_no_checkpoints(workdir)
    exponent = next(iter(pooling_exponents(settings["pooling_exponent"])), None)
    opened = open_weights(settings, pooling_exponent=exponent)
    if opened.variables.head:
        raise InputError(
            f"init_from: {opened.checkpoint.path} has another network's descriptor "
            "head, behind which no whitening is fitted; give a checkpoint without one"
        )
    if opened.variables.whitening:
        raise InputError(
            f"init_from: {opened.checkpoint.path} is whitened already; give the "
            "checkpoint it was made from"
        )
    records = own_folder(workdir)
    write_config(records, settings)
    moments, examples, num_skipped = _collect(settings, opened, records)
    whitening = _fit(settings, moments)
    whitened, results = _whitened_model(settings, opened, whitening, examples)
    is_first = jax.process_index() == 0
    if is_first:
        save_model(workdir, opened.checkpoint, model=whitened, record=settings)
        _save_spectrum(workdir, whitening)
    results |= {
        "num_images": moments.count,
        "num_skipped": num_skipped,
        "num_components": whitening.projection.shape[1],
        "largest_eigenvalue": float(whitening.eigenvalues[0]),
        "mean_eigenvalue": float(whitening.eigenvalues.mean()),
        "smallest_eigenvalue": float(whitening.eigenvalues[-1]),
    }
    print("\n".join(f"{name:<20}  {value:g}" for name, value in results.items()))
    if config.report_split:
        results |= _report(settings, opened, whitened, records)
    if not is_first:
        return {}
    results["seconds"] = time.perf_counter() - started
    write_results(workdir, results)
    return results


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = evaluation_problems(settings, num_devices=jax.device_count())
    if settings["num_components"] is not None and not settings["include_bias_channel"]:
        problems.append(
            "num_components with include_bias_channel = False: the channel that "
            "carries the bias is of use to a folded classifier alone, and one with "
            "fewer components cannot be folded; leave one of the two out"
        )
    if len(as_tuple(settings["pooling_exponent"])) > 1:
        problems.append("pooling_exponent: found several, expected one")
    return problems


def _collect(
    settings: Mapping[str, Any], opened: OpenedModel, workdir: Path
) -> tuple[Moments, list[HostBatch], int]:
    """The moments of all images, some batches, and how many were unreadable.

    Each host embeds its rows by itself; the moments are summed at the end. The batches
    are its own.
    """
    mesh = make_own_mesh()
    data = settings["data"]
    source = open_split(data_set_from_config(settings), data["split"])
    plan = plan_from_config(
        settings, source, backbone=opened.backbone, test_size=settings["test_size"]
    )
    print(f"{opened.name} from {opened.checkpoint.path}: {plan}", flush=True)
    batches = readable_batches(settings, source, plan, workdir=workdir)
    seen: list[HostBatch] = []

    def watched() -> Iterable[HostBatch]:
        for batch in batches:
            missing = VERIFIED_IMAGES - sum(_readable(each).sum() for each in seen)
            if missing > 0 and _readable(batch).any():
                seen.append(batch)
            yield batch

    moments = empty_moments(opened.backbone.embedding_dim + 1)
    num_skipped = 0
    for embedded in embed_batches(
        make_embed_step(opened.graphdef, backbone=opened.backbone, mesh=mesh),
        put_replicated(mesh, opened.variables),
        watched(),
        mesh=mesh,
    ):
        embedding = embedded.embedding[~embedded.bad]
        num_skipped += int(embedded.bad.sum())
        vectors = np.asarray(whitening_input(jnp.asarray(embedding)))
        moments = add_to_moments(moments, vectors)
    skipped = gather_shares(np.array(num_skipped, np.int64))
    return _of_all_hosts(moments), seen, int(skipped.sum())


def _of_all_hosts(own: Moments) -> Moments:
    """The moments of all hosts' vectors."""
    if jax.process_count() == 1:
        return own
    counts = gather_shares(np.array(own.count, np.int64))
    count = int(counts.sum())
    means = gather_shares(own.mean)
    mean = counts.astype(np.float64) @ means / max(1, count)
    return Moments(count, mean, sum_over_hosts(scatter_around(own, mean)))


def _fit(settings: Mapping[str, Any], moments: Moments) -> PcaWhitening:
    if settings["include_bias_channel"]:
        return fit_pca_whitening(
            moments,
            num_components=settings["num_components"],
            eigenvalue_floor=settings["eigenvalue_floor"],
        )
    inner = Moments(moments.count, moments.mean[:-1], moments.scatter[:-1, :-1])
    return pass_channel_through(
        fit_pca_whitening(inner, eigenvalue_floor=settings["eigenvalue_floor"])
    )


def _whitened_model(
    settings: Mapping[str, Any],
    opened: OpenedModel,
    whitening: PcaWhitening,
    examples: Sequence[HostBatch],
) -> tuple[dict[str, Any], dict[str, float]]:
    """The new `model` item, verified, and what there is to say of it."""
    model = dict(opened.checkpoint.model)
    classifier = model["params"].get("classifier")
    dtype = np.asarray(model["pooling_exponent"]).dtype
    model["whitening"] = {
        "mean": whitening.mean.astype(dtype),
        "projection": whitening.projection.astype(dtype),
    }
    model["pooling_exponent"] = np.asarray(opened.pooling_exponent, dtype)
    if classifier is None:
        return model, {}
    if settings["num_components"] not in (None, len(whitening.mean)):
        print(
            f"{settings['num_components']} of {len(whitening.mean)} components: the "
            "classifier is left unfolded, it reads the embedding before the whitening"
        )
        return model, {}
    kernel, bias = fold_into_classifier(
        np.asarray(classifier["kernel"]), np.asarray(classifier["bias"]), whitening
    )
    folded = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
    model["params"] = {**model["params"], "classifier": folded}
    return model, {"folding_error": _verify_folding(opened, model, examples)}


def _verify_folding(
    opened: OpenedModel,
    model: Mapping[str, Any],
    examples: Sequence[HostBatch],
) -> float:
    """Compare the folded classifier with the original on some images of each host.

    Returns:
        The largest error of a logit, as a share of the largest logit.

    Raises:
        InputError: the error is too large, or it changes the five best classes.
    """
    checkpoint = dataclasses.replace(opened.checkpoint, model=dict(model))
    whitened = open_checkpoint(
        checkpoint,
        pooling_exponent=opened.pooling_exponent,
        dtype=opened.variables.pooling_exponent.dtype,
    )

    @jax.jit
    def both(plain_variables, whitened_variables, batch):
        plain = merge_model(opened.graphdef, plain_variables)
        features = features_of_uint8(plain, batch, backbone=opened.backbone)
        before = plain.head(features)
        after = merge_model(whitened.graphdef, whitened_variables).head(features)
        # The norm of [embedding, 1].
        squared = jnp.sum(before.embedding**2, axis=-1, keepdims=True) + 1.0
        logits = class_logits(before.logits)
        return logits / (jnp.sqrt(squared) + NORM_EPSILON), after.logits

    mesh = make_own_mesh()
    variables = [put_replicated(mesh, m.variables) for m in (opened, whitened)]
    rows = [np.zeros((2, 0, opened.num_classes), np.float32)]
    for batch in examples:
        logits = both(*variables, put_batch(mesh, network_inputs(batch)))
        rows.append(np.stack(jax.device_get(logits))[:, _readable(batch)])
    expected, found = np.concatenate(rows, axis=1)
    largest = [np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=0)]
    off, scale = gather_shares(np.array(largest, np.float64)).max(axis=0)
    error = float(off / scale)
    count = min(TOP_K, expected.shape[1])
    best = np.argsort(-found, axis=1)[:, :count]
    chosen = np.take_along_axis(expected, best, axis=1).min(axis=1)
    deserved = np.sort(expected, axis=1)[:, -count]
    # Classes closer to each other than the error may change places.
    changed = np.array([np.any(chosen < deserved - 2 * error * scale)])
    if error > FOLDING_TOLERANCE or gather_shares(changed).any():
        raise InputError(
            f"whitening: the folded classifier's logits are off by {error:.2g} of the "
            f"largest, at most {FOLDING_TOLERANCE:g} was expected with the same "
            f"{count} best classes; nothing was written: give more images or a larger "
            "eigenvalue_floor"
        )
    return error


def _readable(batch: HostBatch) -> np.ndarray:
    return batch["mask"] & ~batch["bad"]


def _save_spectrum(workdir: Path, whitening: PcaWhitening) -> None:
    values = whitening.eigenvalues
    points = [(float(i), float(v)) for i, v in enumerate(values, start=1) if v > 0]
    figure = draw_curves(
        {"variance": points},
        title="Spectrum of the whitening",
        x_label="principal axis",
        y_label="variance along it",
        y_scale="log",
    )
    save_plot(workdir, "spectrum", figure)


def _report(
    settings: Mapping[str, Any],
    opened: OpenedModel,
    whitened: Mapping[str, Any],
    workdir: Path,
) -> dict[str, float]:
    """Scores on the report's split before and after; report.html is of after."""
    split = settings["report_split"]
    source = open_split(
        data_set_from_config(settings), split, opened.class_names or None
    )
    checkpoint = dataclasses.replace(opened.checkpoint, model=dict(whitened))
    after = open_checkpoint(
        checkpoint,
        pooling_exponent=opened.pooling_exponent,
        dtype=compute_dtype(settings["compute_dtype"]),
    )
    mesh = make_mesh()
    results = {}
    for name, model in (("before", opened), ("after", after)):
        scores = evaluate_and_report(
            model.graphdef,
            put_replicated(mesh, model.variables),
            source,
            split=split,
            backbone=model.backbone,
            test_size=settings["test_size"],
            test_mode=settings["test_mode"],
            batch_size=settings["batch_size"],
            reading=reading_from_config(settings),
            mesh=mesh,
            workdir=workdir,
        )
        results |= {
            f"{name}/{key.removeprefix(split + '/')}": value
            for key, value in scores.items()
        }
    if results:
        print_table(results)
    return results
