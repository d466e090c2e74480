"""One compiled optimiser update: augmentation, network, losses, sampling, SGD.

Read from the bottom: `_step` is the update, `_mean_gradients` goes through its
microbatches, `_forward_with_loss` is what is differentiated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.losses.joint import JointOutput, joint_loss
from multigrain_jax.losses.margin import MARGIN
from multigrain_jax.losses.sampling import Pairs
from multigrain_jax.mesh import batch_sharding, replicated
from multigrain_jax.models.multigrain import (
    Output,
    class_logits,
    merge_model,
    split_model,
)
from multigrain_jax.ops.mixing import Mixed, MixedLabels
from multigrain_jax.train.ema import update_average
from multigrain_jax.train.state import TrainState, model_variables

# (key, uint8 or float images) -> normalised images
PrepareImages = Callable[[jax.Array, jax.Array], jax.Array]
# (key, normalised embeddings, instance ids) -> pairs, or None without a margin term
SelectPairs = Callable[[jax.Array, jax.Array, jax.Array], Pairs | None]
# (key, normalised images, labels, instance ids) -> the batch with mixtures in it
MixViews = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Mixed]
# (normalised embeddings, instance ids) -> a scalar loss
InstanceLoss = Callable[[jax.Array, jax.Array], jax.Array]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# Another draw than the three that a microbatch's key is split into.
MIXING_STREAM = 3


@dataclass(frozen=True)
class _Update:
    """What one update is made of, as `make_train_step` describes it."""

    graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    seed: int
    prepare_images: PrepareImages
    mix_views: MixViews | None
    select_pairs: SelectPairs
    classification_weight: float
    margin: float
    label_smoothing: float
    infonce: InstanceLoss | None
    koleo: InstanceLoss | None
    koleo_weight: float
    ema_decay: float
    microbatches: int


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    *,
    mesh: Mesh,
    seed: int,
    prepare_images: PrepareImages,
    select_pairs: SelectPairs,
    classification_weight: float,
    margin: float = MARGIN,
    mix_views: MixViews | None = None,
    label_smoothing: float = 0.0,
    infonce: InstanceLoss | None = None,
    koleo: InstanceLoss | None = None,
    koleo_weight: float = 0.0,
    ema_decay: float = 0.0,
    gradient_accumulation_steps: int = 1,
    compiler_options: Mapping[str, str | bool] | None = None,
) -> TrainStep:
    """Compile the training step `(state, batch) -> (state, metrics)`.

    All randomness is a function of (seed, step, microstep) and of the position in the
    global batch, so the numbers do not depend on how many devices share the work. The
    state that goes in is donated.

    Args:
        graphdef: the model's training structure.
        tx: the optimiser.
        mesh: the devices; the batch is split over them.
        seed: the run's seed.
        prepare_images: augmentation and normalisation on the device.
        select_pairs: positives and negatives of the margin loss.
        classification_weight: λ, the weight of the cross-entropy, in [0, 1].
        margin: α of the margin loss.
        mix_views: mixes some of the prepared images for the cross-entropy.
        label_smoothing: ε of the cross-entropy.
        infonce: takes the margin loss's place.
        koleo: a third part of the loss.
        koleo_weight: its weight.
        ema_decay: of the state's running average, where it keeps one.
        gradient_accumulation_steps: microbatches per update. With more than one, every
            array of the batch has a leading axis of that length, gradients are
            averaged over it and running statistics are updated by each in turn.
        compiler_options: XLA's, for this program alone.

    Returns:
        The compiled function. `batch` has `image` [B, S, S, 3], `label` [B] and
        `instance_id` [B]; metrics are float scalars, the losses means over the
        microbatches, the norms those of the whole update.
    """
    update = _Update(
        graphdef=graphdef,
        tx=tx,
        seed=seed,
        prepare_images=prepare_images,
        mix_views=mix_views,
        select_pairs=select_pairs,
        classification_weight=classification_weight,
        margin=margin,
        label_smoothing=label_smoothing,
        infonce=infonce,
        koleo=koleo,
        koleo_weight=koleo_weight,
        ema_decay=ema_decay,
        microbatches=gradient_accumulation_steps,
    )
    split = batch_sharding(mesh, axis=1 if update.microbatches > 1 else 0)
    whole = replicated(mesh)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return _step(update, state, batch)

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(whole, split),
        out_shardings=(whole, whole),
        compiler_options=dict(compiler_options or {}),
    )


def _make_views(
    update: _Update, microbatch: Batch, key: jax.Array
) -> tuple[Batch, MixedLabels | None]:
    """A microbatch as the network takes it, and what its mixtures are besides."""
    image_key = jax.random.split(key, 3)[0]
    images = update.prepare_images(image_key, microbatch["image"])
    if update.mix_views is None:
        return microbatch | {"image": images}, None
    mixed = update.mix_views(
        jax.random.fold_in(key, MIXING_STREAM),
        images,
        microbatch["label"],
        microbatch["instance_id"],
    )
    views = {"image": mixed.images, "instance_id": mixed.instance_ids}
    return microbatch | views, mixed.labels


def _forward(
    update: _Update, state: TrainState, views: Batch, key: jax.Array
) -> tuple[Output, Pairs | None, Any]:
    """What the network makes of a microbatch, its pairs, and the new statistics."""
    _, pair_key, dropout_key = jax.random.split(key, 3)
    model = merge_model(update.graphdef, model_variables(state))
    output = model(views["image"], dropout_key=dropout_key)
    pairs = update.select_pairs(
        pair_key, output.normalized_embedding, views["instance_id"]
    )
    _, updated = split_model(model)
    return output, pairs, updated.batch_stats


def _forward_with_loss(
    params: Any, update: _Update, state: TrainState, microbatch: Batch, key: jax.Array
) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """The joint loss as a function of the parameters; new statistics and metrics."""
    views, mixed = _make_views(update, microbatch, key)
    output, pairs, batch_stats = _forward(
        update, replace(state, params=params), views, key
    )
    more = _losses_of_instances(update, output, views)
    losses = joint_loss(
        class_logits(output.logits),
        views["label"],
        output.normalized_embedding,
        pairs,
        params["margin"]["beta"],
        classification_weight=update.classification_weight,
        margin=update.margin,
        label_smoothing=update.label_smoothing,
        mixed=mixed,
        infonce=more.get("infonce"),
        koleo=more.get("koleo"),
        koleo_weight=update.koleo_weight,
    )
    label = views["label"]
    if mixed is not None:
        # A mixture is most of all what has the larger share of it.
        label = jnp.where(mixed.share >= 0.5, label, mixed.other)
    metrics = _metrics(losses, output, label) | more
    return losses.loss, (batch_stats, metrics)


def _losses_of_instances(update: _Update, output: Output, views: Batch) -> Metrics:
    """The values of those losses that the paper does not have, by name."""
    losses = {"infonce": update.infonce, "koleo": update.koleo}
    return {
        name: loss(output.normalized_embedding, views["instance_id"])
        for name, loss in losses.items()
        if loss is not None
    }


def _metrics(losses: JointOutput, output: Output, label: jax.Array) -> Metrics:
    predicted = jnp.argmax(class_logits(output.logits), axis=-1)
    correct = predicted.astype(jnp.int32) == label
    return {
        "loss": losses.loss,
        "cross_entropy": losses.cross_entropy,
        "margin": losses.margin,
        "top1": jnp.mean(correct.astype(losses.loss.dtype)),
    }


_gradients = jax.grad(_forward_with_loss, has_aux=True)


def _mean_gradients(
    update: _Update, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[Any, Any, Metrics]:
    """Gradients, statistics and metrics of all microbatches of a step."""
    count = update.microbatches
    if count == 1:
        gradients, (batch_stats, metrics) = _gradients(
            state.params, update, state, batch, jax.random.fold_in(key, 0)
        )
        return gradients, batch_stats, metrics

    def accumulate(carry, xs):
        batch_stats, total = carry
        microstep, microbatch = xs
        gradients, (batch_stats, metrics) = _gradients(
            state.params,
            update,
            replace(state, batch_stats=batch_stats),
            microbatch,
            jax.random.fold_in(key, microstep),
        )
        return (batch_stats, jax.tree.map(jnp.add, total, gradients)), metrics

    start = (state.batch_stats, jax.tree.map(jnp.zeros_like, state.params))
    (batch_stats, total), metrics = jax.lax.scan(
        accumulate,
        start,
        (jnp.arange(count, dtype=jnp.int32), batch),
        # On a CPU, XLA runs convolutions in a loop some twenty times slower.
        unroll=count if jax.default_backend() == "cpu" else 1,
    )
    # The original sums; the mean keeps the meaning of the learning rate.
    gradients = jax.tree.map(lambda g: g / count, total)
    return gradients, batch_stats, jax.tree.map(jnp.mean, metrics)


def _step(
    update: _Update, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """One update of the state, and what there is to say of it."""
    key = jax.random.fold_in(jax.random.key(update.seed), state.step)
    gradients, batch_stats, metrics = _mean_gradients(update, state, batch, key)
    changes, opt_state = update.tx.update(gradients, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, changes)
    metrics |= {
        "beta": params["margin"]["beta"],
        "gradient_norm": optax.tree.norm(gradients),
        "parameter_norm": optax.tree.norm(params),
        "update_norm": optax.tree.norm(changes),
    }
    ema = None
    if state.ema is not None:
        ema = update_average(
            state.ema, params, batch_stats, step=state.step, decay=update.ema_decay
        )
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        pooling_exponent=state.pooling_exponent,
        opt_state=opt_state,
        ema=ema,
    )
    return new_state, metrics
