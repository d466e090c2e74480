"""One compiled optimiser update: augmentation, network, losses, sampling, SGD."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from multigrain_jax.losses.joint import joint_loss
from multigrain_jax.losses.margin import MARGIN
from multigrain_jax.losses.sampling import Pairs
from multigrain_jax.mesh import batch_sharding, replicated
from multigrain_jax.models.multigrain import merge_model, split_model
from multigrain_jax.train.state import TrainState, model_variables

# (key, uint8 or float images) -> normalised images
PrepareImages = Callable[[jax.Array, jax.Array], jax.Array]
# (key, normalised embeddings, instance ids) -> pairs, or None without a margin term
SelectPairs = Callable[[jax.Array, jax.Array, jax.Array], Pairs | None]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


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
    gradient_accumulation_steps: int = 1,
    compiler_options: Mapping[str, str | bool] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
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
        gradient_accumulation_steps: microbatches per update. With more than one, every
            array of the batch has a leading axis of that length, gradients are
            averaged over it and running statistics are updated by each in turn.
        compiler_options: XLA's, for this program alone.

    Returns:
        The compiled function. `batch` has `image` [B, S, S, 3], `label` [B] and
        `instance_id` [B]; metrics are float scalars, means over the microbatches.
    """

    def microbatch_gradients(
        state: TrainState, batch_stats: Any, microbatch: Batch, key: jax.Array
    ) -> tuple[Any, Any, Metrics]:
        image_key, pair_key, dropout_key = jax.random.split(key, 3)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
            current = replace(state, params=params, batch_stats=batch_stats)
            model = merge_model(graphdef, model_variables(current))
            images = prepare_images(image_key, microbatch["image"])
            output = model(images, dropout_key=dropout_key)
            normalized = output.normalized_embedding
            pairs = select_pairs(pair_key, normalized, microbatch["instance_id"])
            losses = joint_loss(
                output.logits,
                microbatch["label"],
                normalized,
                pairs,
                params["margin"]["beta"],
                classification_weight=classification_weight,
                margin=margin,
            )
            guess = jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
            correct = guess == microbatch["label"]
            metrics = {
                "loss": losses.loss,
                "cross_entropy": losses.cross_entropy,
                "margin": losses.margin,
                "top1": jnp.mean(correct.astype(losses.loss.dtype)),
            }
            _, updated = split_model(model)
            return losses.loss, (updated.batch_stats, metrics)

        gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
            state.params
        )
        return gradients, batch_stats, metrics

    def all_gradients(
        state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[Any, Any, Metrics]:
        count = gradient_accumulation_steps
        if count == 1:
            key = jax.random.fold_in(key, 0)
            return microbatch_gradients(state, state.batch_stats, batch, key)

        def accumulate(carry, xs):
            batch_stats, total = carry
            microstep, microbatch = xs
            gradients, batch_stats, metrics = microbatch_gradients(
                state, batch_stats, microbatch, jax.random.fold_in(key, microstep)
            )
            return (batch_stats, jax.tree.map(jnp.add, total, gradients)), metrics

        start = (state.batch_stats, jax.tree.map(jnp.zeros_like, state.params))
        # On a CPU, XLA runs convolutions in a loop some twenty times slower.
        unroll = count if jax.default_backend() == "cpu" else 1
        (batch_stats, total), metrics = jax.lax.scan(
            accumulate,
            start,
            (jnp.arange(count, dtype=jnp.int32), batch),
            unroll=unroll,
        )
        # The original sums; the mean keeps the meaning of the learning rate.
        gradients = jax.tree.map(lambda g: g / count, total)
        return gradients, batch_stats, jax.tree.map(jnp.mean, metrics)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradients, batch_stats, metrics = all_gradients(state, batch, key)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics["beta"] = params["margin"]["beta"]
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            pooling_exponent=state.pooling_exponent,
            opt_state=opt_state,
        )
        return new_state, metrics

    split = batch_sharding(mesh, axis=1 if gradient_accumulation_steps > 1 else 0)
    whole = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(whole, split),
        out_shardings=(whole, whole),
        compiler_options=dict(compiler_options or {}),
    )
